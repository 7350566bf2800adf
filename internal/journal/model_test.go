package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keepcache/keepcache/internal/journal"
)

// Random operations leave the journal with exactly the log records of a slice.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "j")
		segment := 4096 * rapid.IntRange(1, 3).Draw(t, "segment")
		o := journal.Options{
			Identity: identity, SegmentBytes: segment, NoMap: rapid.Bool().Draw(t, "pwrite"),
			Window:   rapid.Bool().Draw(t, "window"),
			MaxBytes: 20<<10 + int64(segment*rapid.IntRange(2, 6).Draw(t, "segments")),
			After:    rapid.Uint64Range(0, 100).Draw(t, "after"),
		}
		j, err := journal.New(path, o)
		require.NoError(t, err)
		defer func() { j.Close(false) }()
		var all []record
		last, released := o.After, o.After
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(300, 1200), rapid.IntRange(0, j.MaxRecord()+1)).Draw(t,
					"bytes")
				first := last + rapid.Uint64Range(1, 3).Draw(t, "skip")
				p := record{first, first + rapid.Uint64Range(0, 5).Draw(t, "count"), content(first, n)}
				cut := rapid.IntRange(0, n).Draw(t, "cut")
				err := j.Append(p.first, p.last, p.data[:cut], nil, p.data[cut:])
				switch {
				case n > j.MaxRecord():
					require.ErrorIs(t, err, journal.ErrTooLarge)
				case errors.Is(err, journal.ErrFull):
					require.NotEqual(t, released, last, "full although all is released")
				default:
					require.NoError(t, err)
					all = append(all, p)
					last = p.last
				}
			},
			"flush": func(t *rapid.T) {
				require.NoError(t, j.Flush(last))
				require.Equal(t, last, j.Stats().Flushed)
			},
			"release": func(t *rapid.T) {
				released = max(released, last-min(last, rapid.Uint64Range(0, 20).Draw(t, "behind")))
				j.Release(released)
			},
			"reopen": func(t *rapid.T) {
				require.NoError(t, j.Close(false))
				got, r := replay(t, path, released)
				requireClean(t, r)
				requireSame(t, above(all, released), got)
				released, all = last, nil
				o.After = last
				j, err = journal.New(path, o)
				require.NoError(t, err)
			},
			"": func(t *rapid.T) {
				at := released + rapid.Uint64Range(0, 10).Draw(t, "further")
				got, r := replay(t, path, at)
				if j.Stats().FileBytes == 0 {
					return
				}
				requireClean(t, r)
				requireSame(t, above(all, at), got)
				s := j.Stats()
				require.LessOrEqual(t, s.FileBytes, o.MaxBytes)
				require.LessOrEqual(t, s.UsedBytes, s.FileBytes)
			},
		})
	})
}
