package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// plan is what a run is to do.
type plan struct {
	scale   Scale
	rounds  int
	heavy   int // rounds of heavy groups
	quick   bool
	peers   []string // names; empty for all
	groups  []string // names; empty for all
	dir     string   // under which the peers' directories are
	profile string   // where profiles go, or empty
	raw     string   // where the results are saved after each job, or empty
	log     io.Writer
}

// jobMost bounds one process.
const jobMost = 15 * time.Minute

// run does all jobs, round by round, so that each group of workloads sees all peers one after the other. The
// peers take turns at going first.
func (p *plan) run() (*results, error) {
	r := &results{Facts: newFacts(p.dir), Scale: p.scale, Rounds: p.rounds, Heavy: p.heavy, Quick: p.quick}
	start := time.Now()
	for round := range p.rounds {
		for _, g := range groups {
			if len(p.groups) > 0 && !slices.Contains(p.groups, g.name) || g.heavy && round >= p.heavy {
				continue
			}
			for _, j := range p.jobs(g, round) {
				began := time.Now()
				err := p.do(g, j, r)
				p.logf("%6.0fs  round %d/%d  %-7s %-12s %s %.1fs\n", time.Since(start).Seconds(), round+1, p.rounds,
					g.name, j.Peer, modeName(j.Durable), time.Since(began).Seconds())
				if err != nil {
					p.logf("         failed: %v\n", err)
					r.Failed = append(r.Failed, failure{round, j.Peer, g.name, j.Durable, err.Error()})
				}
				if p.raw != "" {
					if err := r.save(p.raw); err != nil {
						return r, err
					}
				}
			}
		}
	}
	return r, nil
}

func (p *plan) logf(format string, args ...any) { fmt.Fprintf(p.log, format, args...) }

func modeName(durable bool) string {
	if durable {
		return "durable"
	}
	return "relaxed"
}

// jobs returns the jobs of one group in one round.
func (p *plan) jobs(g group, round int) (jobs []job) {
	wanted := func(name string) bool { return len(p.peers) == 0 || slices.Contains(p.peers, name) }
	for _, product := range sortedProducts() {
		if !wanted(product.name) || !g.takes(product) || g.once && round > 0 && product.name != us {
			continue
		}
		for _, durable := range []bool{false, true} {
			if durable && (!g.durable || product.durable == nil) || !durable && !g.relaxed {
				continue
			}
			jobs = append(jobs, job{Peer: product.name, Durable: durable})
		}
	}
	if len(jobs) > 0 {
		turn := round % len(jobs)
		jobs = slices.Concat(jobs[turn:], jobs[:turn])
	}
	if g.limit != nil && wanted(limit) {
		// Beside keepcache, which is measured by it.
		at := slices.IndexFunc(jobs, func(j job) bool { return j.Peer == us })
		jobs = slices.Insert(jobs, at+1, job{Peer: limit, Durable: g.durable})
	}
	for i := range jobs {
		jobs[i].Group, jobs[i].Round, jobs[i].Scale, jobs[i].Profile = g.name, round, p.scale, p.profile
	}
	return jobs
}

// do does a job, phase by phase, in a directory of its own.
func (p *plan) do(g group, j job, r *results) (err error) {
	top, err := os.MkdirTemp(p.dir, "keepcache-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(top)) }()
	j.Dir = filepath.Join(top, "peer")
	if err := os.Mkdir(j.Dir, 0o700); err != nil {
		return err
	}
	for i, ph := range g.phases {
		j.Phase = i
		rows, err := spawn(&j, ph.kill)
		if err != nil {
			return fmt.Errorf("phase %d: %w", i, redact(err, top))
		}
		r.add(j.Round, j.Peer, rows)
	}
	return nil
}

// redact takes the place where a run took place out of an error that is published.
func redact(err error, dir string) error {
	return errors.New(strings.ReplaceAll(err.Error(), dir, "DIR"))
}

// spawn runs one phase in a process and returns its rows. One that is killed has none.
func spawn(j *job, kill bool) (map[string]metrics, error) {
	ctx, cancel := context.WithTimeout(context.Background(), jobMost)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(j.reportPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.Stderr = &said
	if kill {
		err = spawnAndKill(cmd, j)
	} else {
		err = cmd.Run()
	}
	out, readErr := os.ReadFile(j.reportPath())
	if kill && errors.Is(readErr, os.ErrNotExist) {
		return nil, err // it did not come to an end, as it should be
	}
	if readErr != nil {
		return nil, fmt.Errorf("%w: %s", cmp.Or(err, readErr), tail(said.String()))
	}
	var rep report
	if err := json.Unmarshal(out, &rep); err != nil {
		return nil, err
	}
	if rep.Err != "" {
		return nil, errors.New(rep.Err)
	}
	return rep.Rows, err
}

// spawnAndKill runs a process until it has acknowledged enough, and kills it.
func spawnAndKill(cmd *exec.Cmd, j *job) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	most, patience := j.Acks, killPatience
	if j.Group == "open" {
		most, patience = 1, jobMost
	}
	acks, err := collect(out, most, patience, cmd.Process.Kill)
	_ = cmd.Wait() // it was killed
	if errors.Is(err, os.ErrProcessDone) {
		err = nil // it ended by itself, and says why in its report
	}
	return errors.Join(err, saveAcks(j.acksPath(), acks))
}

// tail returns the end of a text.
func tail(s string) string {
	const most = 600
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return strings.TrimSpace(s)
}
