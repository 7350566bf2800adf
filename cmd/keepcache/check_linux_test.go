package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

var native = binary.NativeEndian

// soundFile makes a cache with n entries of several buckets at path, of which some pages are free.
func soundFile(t *testing.T, path string, n int) []byte {
	t.Helper()
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	for round := range 2 {
		for i := range n {
			require.NoError(t, db.Set(fmt.Sprintf("a key that is not short %06d", i), strings.Repeat("v", 100), time.Hour))
		}
		if round == 0 {
			_, err = db.Sweep(t.Context())
			require.NoError(t, err)
		}
	}
	require.NoError(t, db.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// pagesOf are the pages of a file with some flags, by their numbers.
func pagesOf(b []byte, flags uint16) (ids []int) {
	for id := 2; (id+1)*4096 <= len(b); id++ {
		if page := b[id*4096:]; native.Uint64(page) == uint64(id) && native.Uint16(page[8:]) == flags {
			ids = append(ids, id)
		}
	}
	return ids
}

// newestMeta returns the meta page that is in force, without its header.
func newestMeta(b []byte) []byte {
	meta := b[16:]
	if native.Uint64(b[4096+16+48:]) > native.Uint64(meta[48:]) {
		meta = b[4096+16:]
	}
	return meta
}

// Whatever the pages say of themselves, the check finds it in bounded memory.
func TestCheckPages_Lies(t *testing.T) {
	skipRaced(t)
	dir := t.TempDir()
	sound := soundFile(t, filepath.Join(dir, "sound.cache"), 5000)
	branches, leaves := pagesOf(sound, 1), pagesOf(sound, 2)
	require.NotEmpty(t, branches)
	require.NotEmpty(t, leaves)
	meta := newestMeta(sound)
	list := native.Uint64(meta[32:])
	require.Less(t, list, uint64(1<<32), "the file stores a list of its free pages")
	root := int(native.Uint64(meta[16:]))

	all := func(ids []int, change func(page []byte)) func(b []byte) {
		return func(b []byte) {
			for _, id := range ids {
				change(b[id*4096:])
			}
		}
	}
	both := append(append([]int(nil), branches...), leaves...)
	for name, damage := range map[string]func(b []byte){
		"overflow of ten millions": all(both, func(p []byte) { native.PutUint32(p[12:], 10_000_000) }),
		"overflow of all bits":     all(both, func(p []byte) { native.PutUint32(p[12:], math.MaxUint32) }),
		"overflow to the last page": all(both,
			func(p []byte) { native.PutUint32(p[12:], uint32(native.Uint64(meta[40:])-native.Uint64(p))-1) }),
		"counts":             all(both, func(p []byte) { native.PutUint16(p[10:], math.MaxUint16) }),
		"counts of branches": all(branches, func(p []byte) { native.PutUint16(p[10:], math.MaxUint16) }),
		"flags":              all(both, func(p []byte) { native.PutUint16(p[8:], 0x77) }),
		"branches as leaves": all(branches, func(p []byte) { native.PutUint16(p[8:], 2) }),
		"leaves as branches": all(leaves, func(p []byte) { native.PutUint16(p[8:], 1) }),
		"their own children": all(branches, func(p []byte) { native.PutUint64(p[16+8:], native.Uint64(p)) }),
		"a circle":           all(branches, func(p []byte) { native.PutUint64(p[16+8:], uint64(root)) }),
		"two parents":        all(branches, func(p []byte) { copy(p[16+8:16+16], p[32+8:32+16]) }),
		"the same key twice": all(branches, func(p []byte) {
			at := 32 + int(native.Uint32(p[32:]))
			first := 16 + int(native.Uint32(p[16:]))
			copy(p[at:at+int(native.Uint32(p[32+4:]))], p[first:first+int(native.Uint32(p[16+4:]))])
		}),
		"free pages in use": func(b []byte) { native.PutUint64(b[list*4096+16:], uint64(root)) },
		"2^60 free pages": func(b []byte) {
			native.PutUint16(b[list*4096+10:], math.MaxUint16)
			native.PutUint64(b[list*4096+16:], 1<<60)
		},
		"no free pages": func(b []byte) { native.PutUint16(b[list*4096+10:], 0) },
		"heads of noise": all(both, func(p []byte) {
			x := native.Uint64(p) * 0x9E3779B97F4A7C15
			native.PutUint64(p[8:], x)
			p[8], p[9] = 1+byte(x>>40)%2, 0
		}),
	} {
		t.Run(name, func(t *testing.T) {
			b := append([]byte(nil), sound...)
			damage(b)
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			require.NoError(t, os.WriteFile(path, b, 0o600))
			c, peak := checkedPages(t, path)
			require.NotEmpty(t, c.Problems)
			require.NotContains(t, c.Problems[0], "bbolt")
			require.Less(t, peak, int64(checkBytes))
			require.NoError(t, os.Remove(path))
		})
	}
	c, peak := checkedPages(t, filepath.Join(dir, "sound.cache"))
	require.Empty(t, c.Problems)
	require.Positive(t, c.Free)
	require.Positive(t, c.Used)
	require.Equal(t, c.Pages, c.Used+c.Free)
	require.Less(t, peak, int64(checkBytes))
}

// raced says that the race detector is on.
var raced bool

// skipRaced skips a test of how much memory a check takes.
func skipRaced(t *testing.T) {
	t.Helper()
	if raced {
		t.Skip("the race detector has memory of its own, beyond what a check may take")
	}
}

// A chain of 100,000 branches takes no more memory than any other file.
func TestCheckPages_Chain(t *testing.T) {
	skipRaced(t)
	const size, links = 1024, 100_000
	path := filepath.Join(t.TempDir(), "chain")
	small := filepath.Join(t.TempDir(), "small")
	b := soundFile(t, small, 10)
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for slot := range 2 {
		meta := append([]byte(nil), b[:size]...)
		native.PutUint64(meta, uint64(slot))
		m := meta[16:]
		native.PutUint32(m[8:], size)
		native.PutUint64(m[16:], 2)
		native.PutUint64(m[32:], math.MaxUint64)
		native.PutUint64(m[40:], links+2)
		native.PutUint64(m[48:], uint64(slot))
		native.PutUint64(m[56:], fnv64(m[:56]))
		_, err = f.WriteAt(meta, int64(slot)*size)
		require.NoError(t, err)
	}
	chain := make([]byte, links*size)
	for i := range links {
		p := chain[i*size:]
		native.PutUint64(p, uint64(i+2))
		native.PutUint16(p[8:], 1)
		native.PutUint16(p[10:], 2)
		for k := range 2 {
			e := p[16+16*k:]
			native.PutUint32(e, uint32(100-16*k+k))
			native.PutUint32(e[4:], 1)
			native.PutUint64(e[8:], uint64(min(i+3+k, links+1)))
			p[16+100+k] = byte('a' + k)
		}
	}
	_, err = f.WriteAt(chain, 2*size)
	require.NoError(t, err)
	c, peak := checkedPages(t, path)
	require.NotEmpty(t, c.Problems)
	require.Less(t, peak, int64(checkBytes))
}

func fnv64(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// checkedPages runs the check of the pages in a process of its own, and returns what it took of memory at most.
func checkedPages(t *testing.T, path string) (c checked, peak int64) {
	t.Helper()
	cmd := program(t, "keepcache", checkPagesName, "--", path)
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &c))
	return c, peakOf(cmd)
}
