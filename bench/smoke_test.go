package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the child that a run starts.
func TestMain(m *testing.M) {
	was, err := runChild()
	switch {
	case err != nil:
		panic(err)
	case !was:
		os.Exit(m.Run())
	}
}

// tinyScale is enough to run every line.
var tinyScale = Scale{
	Entries: 300, Value: 64, Time: 4 * time.Millisecond, Warm: time.Millisecond,
	Many: 500, ManyTime: time.Second, Overwrite: 2, Due: 100, DueAfter: time.Second,
	Journal: 64 << 10, Growth: []int{50, 100}, Acks: 50,
}

// TestPeers_Contract ensures that each peer, in each of its modes, does what the workloads take for granted.
func TestPeers_Contract(t *testing.T) {
	for _, p := range products {
		for _, durable := range []bool{false, true} {
			if durable && p.durable == nil {
				continue
			}
			t.Run(p.name+" "+modeName(durable), func(t *testing.T) {
				t.Parallel() // they wait most of the time
				contract(t, p, Settings{Durable: durable, MemoryBytes: smallMemory, Entries: 300})
			})
		}
	}
}

func contract(t *testing.T, product product, s Settings) {
	d, dir := newData(200, 100), t.TempDir()
	p := product.open()
	require.NoError(t, p.Open(dir, s))
	buf := make([]byte, d.size)
	for i := range 100 {
		require.NoError(t, p.Set(d.keys[i], d.value(buf, i, 7), ttl))
	}
	require.NoError(t, p.SetMany(d.batch(shuffled(1, 100, 200), 7), ttl))
	require.NoError(t, p.Delete(d.keys[3]))
	require.NoError(t, p.Delete(absent(3)))
	require.NoError(t, p.Set(d.keys[4], d.value(buf, 4, 7), 10*time.Millisecond))
	require.NoError(t, p.Settle())
	time.Sleep(1100 * time.Millisecond) // badger counts lifetimes in seconds

	look := func() {
		for i := range 200 {
			value, found, err := p.Get(d.keys[i])
			require.NoError(t, err)
			require.Equal(t, i != 3 && i != 4, found, i)
			if found {
				version, err := d.check(value, i)
				require.NoError(t, err)
				require.EqualValues(t, 7, version)
			}
		}
		_, found, err := p.Get(absent(1))
		require.NoError(t, err)
		require.False(t, found)
	}
	look()
	require.NoError(t, p.Close())
	if product.memory {
		return
	}
	p = product.open()
	require.NoError(t, p.Open(dir, s))
	look()
	require.NoError(t, p.Close())
}

// TestRun_AllGroups ensures that every workload runs in processes of its own, and that a page and a plot come
// of it.
func TestRun_AllGroups(t *testing.T) {
	out := t.TempDir()
	p := &plan{
		scale: tinyScale, rounds: 1, heavy: 1, quick: true, dir: t.TempDir(), log: io.Discard,
		peers: []string{us, bolt, "pebble", "otter", limit}, raw: filepath.Join(out, "raw.json"),
	}
	for _, g := range groups {
		if g.name != "due" { // takes seconds with otter
			p.groups = append(p.groups, g.name)
		}
	}
	r, err := p.run()
	require.NoError(t, err)
	require.Empty(t, r.Failed)

	p.peers, p.groups, p.raw = []string{us}, []string{"due"}, filepath.Join(out, "due.json")
	due, err := p.run()
	require.NoError(t, err)
	require.Empty(t, due.Failed)

	facts, samples := r.Facts, len(r.Samples)
	r, err = loadResults([]string{filepath.Join(out, "raw.json"), filepath.Join(out, "due.json")})
	require.NoError(t, err)
	require.Equal(t, facts, r.Facts)
	require.Len(t, r.Samples, samples+len(due.Samples))
	due.Facts.Cores++
	require.Error(t, r.join(due))
	due.Facts.Cores--
	due.Scale.Entries++
	require.Error(t, r.join(due))
	require.NoError(t, r.write(out))

	for _, target := range targets {
		_, measured := target.number(r)
		require.True(t, measured || target.what == "of the disk's flush limit" || needsMore(target.what),
			"%s, %s", target.work, target.what)
	}
	for _, row := range []string{killRow(false), killRow(true)} {
		lost, ok := r.median(row, us, "lost")
		require.True(t, ok)
		require.Zero(t, lost)
	}
	page, err := os.ReadFile(filepath.Join(out, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(page), "| Get in memory, 1 goroutine | ")
	require.NotContains(t, string(page), p.dir)
	goals, err := os.ReadFile(filepath.Join(out, "targets.md"))
	require.NoError(t, err)
	require.Contains(t, string(goals), "| Get, in memory, 1 goroutine | times bbolt | ")
	plot, err := os.ReadFile(filepath.Join(out, "results.svg"))
	require.NoError(t, err)
	require.Contains(t, string(plot), ">keepcache</text>")
	curves, err := os.ReadFile(filepath.Join(out, "growth.svg"))
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(curves), ">keepcache</text>"))
}

// needsMore tells targets that compare with a peer that the test leaves out.
func needsMore(what string) bool {
	for _, peer := range []string{"badger", "buntdb"} {
		if what == "times "+peer || what == "of those of "+peer {
			return true
		}
	}
	return false
}
