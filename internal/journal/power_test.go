package journal_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// rounds returns n, or what the environment variable KEEPCACHE_ROUNDS says for longer runs.
func rounds(n int) int {
	if v, err := strconv.Atoi(os.Getenv("KEEPCACHE_ROUNDS")); err == nil {
		return v
	}
	return n
}

// After a loss of power everything that was flushed is there, and what else is there is a prefix of what was appended.
func TestPowerLoss(t *testing.T) {
	path := tempPath(t)
	for round := range rounds(effort.Of(200, 600)) {
		powerLoss(t, path, uint64(round))
	}
}

func powerLoss(t *testing.T, path string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	o := journal.Options{
		Identity: identity, SegmentBytes: 4096 * (1 + r.IntN(2)), MaxBytes: 16<<10 + 4096*int64(4+r.IntN(6)),
	}
	o.Window = r.IntN(2) == 0
	d := newDisk(o.MaxBytes, r.IntN(3) == 0)
	o.OpenFile = d.open
	j, err := journal.New(path, o)
	require.NoError(t, err)
	defer j.Close(true)

	var all []record
	var last, flushed, released uint64
	appendOne := func() {
		n := r.IntN(300)
		if r.IntN(5) == 0 {
			n = r.IntN(min(6000, j.MaxRecord()))
		}
		p := record{last + 1 + uint64(r.IntN(2)), 0, nil}
		p.last = p.first + uint64(r.IntN(3))
		p.data = content(p.first, n)
		if err := j.Append(p.first, p.last, p.data); err == nil {
			all, last = append(all, p), p.last
		} else {
			require.ErrorIs(t, err, journal.ErrFull)
		}
	}
	check := func() {
		var got []record
		image := d.afterPowerLoss()
		report, err := journal.ReplayFrom(bytes.NewReader(image), int64(len(image)), identity, released,
			func(first, last uint64, data []byte) error {
				got = append(got, record{first, last, bytes.Clone(data)})
				return nil
			})
		require.NoError(t, err)
		require.False(t, report.Damaged() || report.Gap || report.Foreign, "seed %d: %+v", seed, report)
		want := above(all, released)
		require.LessOrEqual(t, len(got), len(want), "seed %d", seed)
		requireSame(t, want[:len(got)], got)
		if len(got) < len(want) {
			require.Greater(t, want[len(got)].last, flushed, "seed %d: a flushed log record is lost", seed)
		}
	}
	d.onSync = func() error {
		for range r.IntN(3) { // while the flush runs
			if last > 0 {
				appendOne()
			}
		}
		return nil
	}
	appendOne()
	for range 20 + r.IntN(60) {
		switch r.IntN(8) {
		case 0:
			covers := last
			require.NoError(t, j.Flush(last))
			flushed = covers
		case 1:
			if released < flushed {
				released += uint64(r.IntN(int(flushed-released))) + 1
				j.Release(released)
			}
		case 2:
			d.writeBack(r, r.Float64())
			check()
		default:
			appendOne()
		}
	}
	d.writeBack(r, r.Float64())
	check()
}

// Without the flushes the same test finds lost log records: it can fail.
func TestPowerLoss_CanFail(t *testing.T) {
	path := tempPath(t)
	d := newDisk(1<<20, true)
	j := newJournal(t, path, journal.Options{SegmentBytes: 4096, MaxBytes: 1 << 20, OpenFile: d.open})
	for i := range uint64(50) {
		require.NoError(t, j.Append(i+1, i+1, content(i, 200)))
	}
	d.writeBack(rand.New(rand.NewPCG(1, 1)), 0.5)
	n := 0
	image := d.afterPowerLoss()
	_, err := journal.ReplayFrom(bytes.NewReader(image), int64(len(image)), identity, 0,
		func(_, _ uint64, _ []byte) error { n++; return nil })
	require.NoError(t, err)
	require.Less(t, n, 50)
}
