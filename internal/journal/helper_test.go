package journal_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

var identity = [16]byte{'t', 'e', 's', 't', 1, 2, 3}

// log record is one log record as the tests remember it.
type record struct {
	first, last uint64
	data        []byte
}

// content makes the bytes of a log record from its first sequence, so that no two log records are alike.
func content(first uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(first), byte(first >> 8), byte(first >> 16), byte(first >> 24)})
	r.Read(b)
	if n >= 8 {
		binary.LittleEndian.PutUint64(b, first)
	}
	return b
}

// modes are the ways in which a journal is written: through a map of its segments, by pwrite, and through a window.
var modes = map[string]journal.Options{"map": {}, "pwrite": {NoMap: true}, "window": {Window: true}}

// inEachMode runs a test in all of them. The test fills in what else it wants.
func inEachMode(t *testing.T, fn func(t *testing.T, o journal.Options)) {
	for name, o := range modes {
		t.Run(name, func(t *testing.T) { fn(t, o) })
	}
}

// newJournal makes a journal that is closed with the test.
func newJournal(t testing.TB, path string, o journal.Options) *journal.Journal {
	t.Helper()
	if o.Identity == ([16]byte{}) {
		o.Identity = identity
	}
	j, err := journal.New(path, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close(false)) })
	return j
}

func tempPath(t testing.TB) string { return filepath.Join(t.TempDir(), "x-journal") }

// replay collects what the journal at path holds above after.
func replay(t require.TestingT, path string, after uint64) ([]record, journal.Report) {
	var got []record
	r, err := journal.Replay(path, identity, after, func(first, last uint64, data []byte) error {
		got = append(got, record{first, last, bytes.Clone(data)})
		return nil
	})
	require.NoError(t, err)
	return got, r
}

// above returns the log records with a sequence above after.
func above(all []record, after uint64) []record {
	for i, p := range all {
		if p.last > after {
			return all[i:]
		}
	}
	return nil
}

// requireSame fails unless got is want.
func requireSame(t require.TestingT, want, got []record) {
	require.Equal(t, len(want), len(got), "number of log records")
	for i := range want {
		require.Equal(t, want[i].first, got[i].first)
		require.Equal(t, want[i].last, got[i].last)
		require.True(t, bytes.Equal(want[i].data, got[i].data), "log record %d differs", want[i].first)
	}
}

// requireClean fails if the report tells of anything but a whole journal.
func requireClean(t require.TestingT, r journal.Report) {
	require.False(t, r.Damaged() || r.Foreign || r.Gap || r.Torn, "%+v", r)
}
