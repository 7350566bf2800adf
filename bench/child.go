package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"
)

// childVariable names the variable of the environment that makes a process a child: it holds the job.
const childVariable = "KEEPCACHE_BENCH_JOB"

// job is what the parent asks of a child: one phase of one group of workloads, with one peer. A child does
// its job in a process of its own, so that no peer pays for another's garbage, and can be killed.
type job struct {
	Peer    string
	Durable bool
	Group   string
	Phase   int
	Round   int
	Dir     string // of the peer; it is there, and empty before the first phase
	Profile string // where CPU profiles go, or empty
	Scale
}

// Scale is how much of everything there is.
type Scale struct {
	Entries   int           // of most workloads
	Value     int           // bytes of a value
	Time      time.Duration // of one measurement
	Warm      time.Duration // before it
	Many      int           // entries of the workloads with many
	ManyTime  time.Duration // what a slow peer has for those at the most
	Overwrite int           // how often the entries are overwritten in the row on the file's size
	Due       int           // entries due at once
	DueAfter  time.Duration // when they are
	Journal   int64         // bytes written before a kill
	Growth    []int         // entries of the steps of the growth
	Acks      int           // acknowledged writes before a kill
}

// metrics are results of one row: by name, in ns, operations a second, bytes or plain numbers.
type metrics map[string]float64

// report is what a child says in the end.
type report struct {
	Rows map[string]metrics
	Err  string
}

// child is a running job.
type child struct {
	job
	product product
	data    *data
	report  report
}

// runChild does the job that the environment holds, if there is one.
func runChild() (was bool, err error) {
	text := os.Getenv(childVariable)
	if text == "" {
		return false, nil
	}
	c := &child{report: report{Rows: map[string]metrics{}}}
	if err := json.Unmarshal([]byte(text), &c.job); err != nil {
		return true, err
	}
	if c.product, err = findProduct(c.Peer); err != nil && c.Peer != limit {
		return true, err
	}
	g, err := findGroup(c.Group)
	if err != nil {
		return true, err
	}
	work := g.phases[c.Phase].run
	if c.Peer == limit {
		work = g.limit
	}
	if err := work(c); err != nil {
		c.report.Err = err.Error()
	}
	out, err := json.Marshal(c.report)
	if err != nil {
		return true, err
	}
	return true, os.WriteFile(c.reportPath(), out, 0o600)
}

// reportPath is beside the peer's directory.
func (j *job) reportPath() string { return j.Dir + ".report" }

// entries prepares data for n entries.
func (c *child) entries(n int) { c.data = newData(n, c.Value) }

// withPeer opens the peer, hands it to fn, and closes it.
func (c *child) withPeer(s Settings, fn func(Peer) error) error {
	s.Durable = c.Durable
	s.Entries = cmp.Or(s.Entries, c.Entries)
	p := c.product.open()
	if err := p.Open(c.Dir, s); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	return errors.Join(fn(p), p.Close())
}

// row returns the metrics of a row of this peer.
func (c *child) row(name string) metrics {
	m := c.report.Rows[name]
	if m == nil {
		m = metrics{}
		c.report.Rows[name] = m
	}
	return m
}

// measure warms a load up, measures it, and puts the results into a row.
func (c *child) measure(row string, p Peer, l load) error {
	warm := l
	warm.duration, warm.every = cmp.Or(l.duration, c.Warm), 0
	warm.duration = min(warm.duration, c.Warm)
	if _, err := measure(warm); err != nil {
		return fmt.Errorf("%s, warm-up: %w", row, err)
	}
	return c.measureCold(row, p, l)
}

// measureCold measures without a warm-up.
func (c *child) measureCold(row string, p Peer, l load) error {
	stop, err := c.profile(row)
	if err != nil {
		return err
	}
	before := counts(p)
	t, err := measure(l)
	stop()
	if err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	m := c.row(row)
	m["ops/s"] = t.rate()
	m["ns/op"] = 1e9 / t.rate()
	m["ops"] = float64(t.ops)
	m["seconds"] = t.elapsed.Seconds()
	m["allocs/op"] = t.allocs
	m["B/op"] = t.bytes
	for k, name := range []string{"read", "write"} {
		if h := &t.latencies[k]; h.total > 0 {
			m[name+" p50"] = float64(h.quantile(.5))
			m[name+" p99"] = float64(h.quantile(.99))
			m[name+" p99.9"] = float64(h.quantile(.999))
			m[name+" max"] = float64(h.most)
		}
	}
	for name, n := range counts(p) {
		m["own "+name] = n - before[name]
	}
	return nil
}

func counts(p Peer) map[string]float64 {
	if c, ok := p.(Counter); ok {
		return c.Counts()
	}
	return nil
}

// profile starts a CPU profile of a row, if profiles are asked for.
func (c *child) profile(row string) (stop func(), err error) {
	if c.Profile == "" {
		return func() {}, nil
	}
	name := fmt.Sprintf("%s-%s-%d.cpu.prof", row, strings.ReplaceAll(c.Peer, " ", "-"), c.Round)
	f, err := os.Create(filepath.Join(c.Profile, name))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}
