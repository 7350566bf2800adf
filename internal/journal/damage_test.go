package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// sample makes a journal in which segments were used again, and returns its bytes, its log records and what was
// released. Half of the log records above that are flushed.
func sample(t *testing.T, o journal.Options) (image []byte, records []record, released, flushed uint64) {
	path := tempPath(t)
	o.SegmentBytes, o.MaxBytes = 4096, 16<<10+4*4096
	if o.Window {
		o.MaxBytes += 4096
	}
	j := newJournal(t, path, o)
	seq := uint64(0)
	add := func(n int) {
		seq++
		p := record{seq, seq + 1, content(seq, n)}
		seq++
		require.NoError(t, j.Append(p.first, p.last, p.data))
		records = append(records, p)
	}
	for range 12 {
		for _, n := range []int{10, 200, 900, 0, 1500} {
			add(n)
		}
		require.NoError(t, j.Flush(seq))
		if released = seq - 10; seq > 20 {
			j.Release(released)
		}
	}
	flushed = seq
	for _, n := range []int{40, 300, 1100, 20, 350, 30, 400, 60} {
		add(n)
	}
	image, err := os.ReadFile(path)
	require.NoError(t, err)
	return image, records, released, flushed
}

// checkImage replays an image that was damaged, and fails on a wrong log record, or on a loss below the mark that is
// not reported.
func checkImage(
	t *testing.T, what string, image []byte, records []record, after, flushed uint64,
) (journal.Report, int) {
	var got []record
	r, err := journal.ReplayFrom(bytes.NewReader(image), int64(len(image)), identity, after,
		func(first, last uint64, data []byte) error {
			got = append(got, record{first, last, bytes.Clone(data)})
			return nil
		})
	require.NoError(t, err, what)
	require.False(t, r.Foreign, what)
	want := above(records, after)
	k, missing := 0, 0
	for _, p := range want {
		if k < len(got) && got[k].first == p.first {
			if p.last != got[k].last || !bytes.Equal(p.data, got[k].data) {
				require.Fail(t, "wrong log record", "%s: %d", what, p.first)
			}
			k++
			continue
		}
		missing++
		if r.Unreadable || p.first > min(flushed, r.Flushed) {
			continue
		}
		if r.Holes == 0 || p.first < r.LostFirst || p.last > r.LostLast {
			require.Fail(t, "unreported loss", "%s: %d, %+v", what, p.first, r)
		}
	}
	require.Equal(t, len(got), k, "%s: log records out of nowhere", what)
	return r, missing
}

// No flipped byte makes a wrong log record, and one below the flushed mark is reported and costs only the log record
// that it is in.
func TestDamage_EveryByte(t *testing.T) {
	image, records, released, flushed := sample(t, journal.Options{})
	r, missing := checkImage(t, "whole", image, records, released, flushed)
	requireClean(t, r)
	require.Zero(t, missing)
	require.Equal(t, flushed, r.Flushed)

	_, everything := os.LookupEnv("KEEPCACHE_ROUNDS")
	holes, tails, harmless := 0, 0, 0
	for i := range image {
		if i == 64 || i == 8192+64 { // between the copies of the head nothing is read
			continue
		}
		flips := []byte{0xff, 0x01}
		if !everything {
			flips = flips[i%2 : i%2+1]
		}
		for _, flip := range flips {
			image[i] ^= flip
			what := fmt.Sprintf("byte %d ^ %#x", i, flip)
			r, missing := checkImage(t, what, image, records, released, flushed)
			image[i] ^= flip
			require.False(t, r.Unreadable, what)
			require.Equal(t, flushed, r.Flushed, what)
			if i >= 16<<10 && i%1024 < 40 {
				require.Zero(t, missing, what) // a block does without its header
			}
			switch {
			case r.Holes > 0:
				holes++
				require.Equal(t, 1, r.Holes, what)
				require.LessOrEqual(t, missing, 2, what)
				require.LessOrEqual(t, r.LostLast, flushed, what)
				require.Positive(t, r.LostBytes, what)
			case missing > 0:
				tails++
			default:
				harmless++
			}
		}
	}
	t.Logf("%d bytes: %d flips made a hole, %d a shorter tail, %d did no harm", len(image), holes, tails, harmless)
	require.Positive(t, holes)
	require.Positive(t, tails)
}

// The same where there is a window. What is in there alone was not flushed.
func TestDamage_EveryByteOfWindow(t *testing.T) {
	image, records, released, flushed := sample(t, modes["window"])
	r, missing := checkImage(t, "whole", image, records, released, flushed)
	requireClean(t, r)
	require.Zero(t, missing)

	holes, tails, step := 0, 0, effort.Of(3, 1)
	for i := 0; i < len(image); i += step {
		image[i] ^= 0xff
		what := fmt.Sprintf("byte %d", i)
		r, missing := checkImage(t, what, image, records, released, flushed)
		image[i] ^= 0xff
		require.False(t, r.Unreadable, what)
		holes += r.Holes
		if i >= 16<<10 && i < 20<<10 {
			require.False(t, r.Damaged(), what)
			if missing > 0 {
				tails++
			}
		}
	}
	require.Positive(t, holes)
	require.Positive(t, tails)

	// A window that holds an older block than its place, or another block, changes nothing.
	before := bytes.Clone(image[16<<10 : 20<<10])
	for seq := 1; seq < len(image)/1024-20; seq++ {
		copy(image[16<<10:], image[(19+seq)<<10:(20+seq)<<10])
		got, missing := checkImage(t, fmt.Sprintf("block %d in the window", seq), image, records, released, flushed)
		require.False(t, got.Damaged())
		require.Positive(t, missing) // the tail was in the window
	}
	copy(image[16<<10:], before)
}

// A window that is older than the present use of its block does not count.
func TestDamage_OldWindow(t *testing.T) {
	path := tempPath(t)
	o := modes["window"]
	o.SegmentBytes, o.MaxBytes = 4096, 20<<10+2*4096
	j := newJournal(t, path, o)
	read := func() []byte {
		image, err := os.ReadFile(path)
		require.NoError(t, err)
		return image
	}
	old := [][]byte{}
	var all []record
	for seq := uint64(1); seq <= 60; seq++ {
		p := record{seq, seq, content(seq, 100+int(seq%7)*50)}
		require.NoError(t, j.Append(p.first, p.last, p.data))
		require.NoError(t, j.Flush(seq))
		all = append(all, p)
		image := read()
		for _, window := range old {
			copy(image[16<<10:], window)
			r, missing := checkImage(t, "old window", image, all, seq-min(seq, 5), seq)
			requireClean(t, r)
			require.Zero(t, missing)
		}
		old = append(old, bytes.Clone(read()[16<<10:20<<10]))
		j.Release(seq - min(seq, 5))
	}
}

// The marks of the log records themselves tell damage from a torn tail, also in a journal of one block, of which even
// the header is damaged.
func TestDamage_OneBlock(t *testing.T) {
	path := tempPath(t)
	j := newJournal(t, path, journal.Options{SegmentBytes: 4096, MaxBytes: 1 << 20})
	var records []record
	for i := range uint64(5) {
		p := record{i + 1, i + 1, content(i, 20)}
		require.NoError(t, j.Append(p.first, p.last, p.data))
		require.NoError(t, j.Flush(p.last))
		records = append(records, p)
	}
	image, err := os.ReadFile(path)
	require.NoError(t, err)
	const start, each = 16<<10 + 40, 8 + 28 + 20
	for i := 16 << 10; i < start+5*each; i++ {
		image[i] ^= 0xff
		what := fmt.Sprintf("byte %d", i)
		r, missing := checkImage(t, what, image, records, 0, 4)
		switch n := uint64((i-start)/each) + 1; {
		case i < start:
			require.Zero(t, missing, what)
			require.False(t, r.Damaged(), what)
		case n < 5:
			require.Equal(t, 1, missing, what)
			require.Equal(t, []uint64{n, n}, []uint64{r.LostFirst, r.LostLast}, what)
			require.Equal(t, int64(each), r.LostBytes, what)
		default: // nothing says that the last one was flushed
			require.Equal(t, 1, missing, what)
			require.True(t, r.Torn && !r.Damaged(), what)
		}
		image[i] ^= 0xff
	}
}

// No length at which the file is cut makes a wrong log record.
func TestDamage_EveryLength(t *testing.T) {
	image, records, released, flushed := sample(t, journal.Options{})
	for n := range image {
		r, missing := checkImage(t, fmt.Sprintf("length %d", n), image[:n], records, released, flushed)
		if n < 64 {
			require.True(t, r.Unreadable)
		}
		require.True(t, missing > 0 || n > 16<<10)
	}
}

// No lost sector, and no pair of them, makes a wrong log record.
func TestDamage_EverySector(t *testing.T) {
	image, records, released, flushed := sample(t, journal.Options{})
	zero := func(img []byte, at int) []byte {
		img = bytes.Clone(img)
		clear(img[at:min(at+sector, len(img))])
		return img
	}
	for at := 0; at < len(image); at += sector {
		one := zero(image, at)
		r, _ := checkImage(t, fmt.Sprintf("sector %d", at), one, records, released, flushed)
		require.False(t, r.Unreadable)
		for b := at + sector; b < len(image); b += sector {
			checkImage(t, fmt.Sprintf("sectors %d, %d", at, b), zero(one, b), records, released, flushed)
		}
	}
}

// Blocks that change places make no wrong log record.
func TestDamage_MovedBlocks(t *testing.T) {
	image, records, released, flushed := sample(t, journal.Options{})
	const block = 1024
	for a := 16 << 10; a < len(image); a += block {
		for b := 16 << 10; b < len(image); b += block {
			img := bytes.Clone(image)
			copy(img[a:a+block], image[b:b+block])
			checkImage(t, fmt.Sprintf("block %d over %d", b, a), img, records, released, flushed)
		}
	}
}
