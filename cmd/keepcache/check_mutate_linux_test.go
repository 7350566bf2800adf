package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
	"github.com/keepcache/keepcache/internal/torture/mutate"
)

var (
	checkFiles = flag.Int("check.files", effort.Of(120, 500), "how many damaged files the pages are checked of")
	checkBolt  = flag.Int("check.bbolt", effort.Of(20, 40),
		"on how many of them the check is compared with bbolt's, which takes a process for each")
	checkSeed = flag.Uint64("check.seed", 0, "seed of the damages; 0 for a new one")
	checkDir  = flag.String("check.dir", "", "directory of the sound files, to be kept or used again")
)

func init() {
	programs["auditor"] = auditor
	programs["bolter"] = bolter
}

// auditor checks the pages of damaged files as the command does, and says of each whether it is sound, and in the end
// how much memory it took at most. Its arguments are a directory with sound files, the seed, and the numbers of the
// first file and of the one behind the last.
func auditor() {
	limitMemory(checkBytes)
	eachMutated(os.Args[1:], func(number int, _, path string) {
		var c checked
		if _, err := c.audit(context.Background(), path); err != nil {
			c.problem(err.Error())
		}
		fmt.Println("end", number, c.sound(), strings.Join(c.Problems[:min(len(c.Problems), 1)], ""))
	})
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	line, _, _ := bytes.Cut(rest, []byte(" kB"))
	fmt.Println("peak", string(bytes.TrimSpace(line)))
}

// bolter checks the same files with bbolt's own check, with which it may come to any end. One more argument is how long
// a file may take.
func bolter() {
	limitMemory(192 << 20)
	patience, err := time.ParseDuration(os.Args[5])
	if err != nil {
		os.Exit(2)
	}
	eachMutated(os.Args[1:], func(number int, how, path string) {
		fmt.Println("begin", number, how)
		hung := time.AfterFunc(patience, func() { os.Exit(3) })
		defer hung.Stop()
		db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true})
		if err != nil {
			fmt.Println("end", number, true, "not opened")
			return
		}
		tx, err := db.Begin(false)
		if err != nil {
			os.Exit(2)
		}
		for err := range tx.Check() {
			words := err.Error()
			fmt.Println("end", number, false, strings.ReplaceAll(words[:min(len(words), 200)], "\n", " "))
			os.Exit(exitAgain) // or its goroutine would go on with this file
		}
		fmt.Println("end", number, true, "")
		_ = tx.Rollback()
		_ = db.Close()
	})
}

// boltPatience is how long bbolt's check may take before it counts as hung, which costs that long for each file on
// which it is.
const boltPatience = 3 * time.Second

// exitAgain says that the next process is to go on.
const exitAgain = 9

// eachMutated calls fn for damaged files.
func eachMutated(args []string, fn func(number int, how, path string)) {
	var victims []mutate.Victim
	for i := 0; ; i++ {
		file, err := os.ReadFile(filepath.Join(args[0], fmt.Sprintf("%d.cache", i)))
		if err != nil {
			break
		}
		old, _ := os.ReadFile(filepath.Join(args[0], fmt.Sprintf("%d.old", i)))
		victims = append(victims, mutate.Victim{File: file, OldFile: old})
	}
	seed, _ := strconv.ParseUint(args[1], 10, 64)
	from, _ := strconv.Atoi(args[2])
	to, _ := strconv.Atoi(args[3])
	dir, err := os.MkdirTemp(args[0], "mutated")
	if err != nil {
		os.Exit(2)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "file")
	for number := from; number < to; number++ {
		r := rand.New(rand.NewPCG(seed, uint64(number)))
		v := victims[r.IntN(len(victims))]
		damaged, how := mutate.Damage(r, v)
		if r.IntN(3) == 0 {
			heads(r, damaged.File)
			how += "and heads"
		}
		_ = os.Remove(path)
		if err := os.WriteFile(path, damaged.File, 0o600); err != nil {
			os.Exit(2)
		}
		fn(number, how, path)
	}
}

// heads writes noise over the heads of some pages, so that their counts and overflows are anything.
func heads(r *rand.Rand, b []byte) {
	for range 1 + r.IntN(4) {
		if len(b) < 3*4096 {
			return
		}
		page := b[(2+r.IntN(len(b)/4096-2))*4096:]
		switch r.IntN(4) {
		case 0:
			native.PutUint32(page[12:], r.Uint32())
		case 1:
			native.PutUint32(page[12:], r.Uint32N(uint32(len(b)/4096)))
		case 2:
			native.PutUint16(page[10:], uint16(r.Uint32()))
		case 3:
			native.PutUint64(page[8:], r.Uint64())
		}
	}
}

// mutatedShapes makes the sound files.
func mutatedShapes(t *testing.T, dir string) {
	for i, c := range []struct {
		entries, value, key int
		crashed             bool
	}{{10, 50, 10, false}, {3000, 60, 20, false}, {300, 9000, 20, false}, {300, 20, 3000, false}, {2000, 60, 20, true}} {
		path := filepath.Join(dir, fmt.Sprintf("%d.cache", i))
		db, err := keepcache.Open(path, nil)
		require.NoError(t, err)
		write := func(b *keepcache.Bucket, ttl time.Duration) {
			for k := range c.entries {
				key := fmt.Sprintf("%s%07d", strings.Repeat("k", c.key), k*7919%c.entries)
				require.NoError(t, b.Set(key, strings.Repeat("v", c.value+k%9), ttl))
			}
			_, err := db.Sweep(t.Context())
			require.NoError(t, err)
		}
		keep := func(name string) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		write(db.Bucket("a"), time.Hour)
		keep(fmt.Sprintf("%d.old", i))
		write(db.Bucket("b"), 0)
		write(db.Bucket("a"), 2*time.Hour)
		if c.crashed { // its free pages are in no list
			keep("crashed")
		}
		require.NoError(t, db.Close())
		if c.crashed {
			require.NoError(t, os.Rename(filepath.Join(dir, "crashed"), path))
		}
	}
}

// Whatever bbolt's check finds in a damaged file, or dies of, ours finds, and it needs little memory for it.
func TestCheckPages_Mutated(t *testing.T) {
	skipRaced(t)
	parent := t.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		parent = "/dev/shm"
	}
	dir := *checkDir
	if dir == "" {
		var err error
		dir, err = os.MkdirTemp(parent, "keepcache-check-")
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	if _, err := os.Stat(filepath.Join(dir, "0.cache")); err != nil {
		mutatedShapes(t, dir)
	}
	seed := *checkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	type verdict struct {
		sound bool
		words string
	}
	// each runs a program over files, anew behind one on which it ends, which is a verdict too.
	each := func(name string, from, to int, patience time.Duration, peak *int) map[int]verdict {
		verdicts := make(map[int]verdict)
		for from < to {
			cmd := program(t, name, dir, strconv.FormatUint(seed, 10), strconv.Itoa(from), strconv.Itoa(to), patience.String())
			var stderr capped
			stderr.most = 4096
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			lines, how := bufio.NewScanner(out), ""
			for lines.Scan() {
				fields := strings.SplitN(lines.Text(), " ", 4)
				switch n, _ := strconv.Atoi(fields[1]); fields[0] {
				case "begin":
					how = lines.Text()
				case "end":
					verdicts[n] = verdict{fields[2] == "true", fields[3]}
					from = n + 1
				case "peak":
					*peak = max(*peak, n)
				}
			}
			if err = cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != exitAgain {
				first, _, _ := strings.Cut(strings.TrimSpace(string(stderr.text)), "\n")
				verdicts[from] = verdict{false, fmt.Sprintf("ended: %v %s, %s", err, first, how)}
				from++
			}
		}
		return verdicts
	}
	peak, none := 0, 0
	found, boltSound, boltFound, ended := 0, 0, 0, 0
	const batch = 1000
	for from := 0; from < *checkFiles; from += batch {
		to := min(from+batch, *checkFiles)
		ours := each("auditor", from, to, 0, &peak)
		theirs := each("bolter", from, min(to, *checkBolt), boltPatience, &none)
		for n := from; n < to; n++ {
			require.NotContains(t, ours[n].words, "ended:", "file %d", n)
			if !ours[n].sound {
				found++
			}
			if n >= *checkBolt {
				continue
			}
			if ours[n].sound && strings.HasPrefix(theirs[n].words, "ended:") { // the machine may have been busy
				theirs[n] = each("bolter", n, n+1, 20*boltPatience, &none)[n]
			}
			require.False(t, ours[n].sound && !theirs[n].sound, "file %d: bbolt: %s", n, theirs[n].words)
			if ours[n].sound {
				boltSound++
			}
			if !theirs[n].sound {
				boltFound++
			}
			if strings.HasPrefix(theirs[n].words, "ended:") {
				ended++
			}
		}
	}
	t.Logf("%d damaged files: damage found in %d, %d MiB of memory at most; of the first %d bbolt's check found damage in %d, "+
		"on %d of which its process ended, and ours in %d", *checkFiles, found, peak>>10, *checkBolt, boltFound, ended,
		*checkBolt-boltSound)
	require.Less(t, int64(peak)<<10, int64(checkBytes))
	require.Positive(t, boltFound)
	require.Positive(t, found)
	for i := range 5 { // and what is sound is sound
		var c checked
		_, err := c.audit(t.Context(), filepath.Join(dir, fmt.Sprintf("%d.cache", i)))
		require.NoError(t, err)
		text, err := json.Marshal(c)
		require.NoError(t, err)
		require.True(t, c.sound(), string(text))
	}
}
