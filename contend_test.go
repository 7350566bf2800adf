package keepcache_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// An Update whose function writes the key itself, in whatever way, gives up soon and says why; what the function wrote
// stays.
func TestUpdate_WritesItself(t *testing.T) {
	for name, write := range map[string]func(db *keepcache.DB, b *keepcache.Bucket) error{
		"Set": func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.Set("k", "fn", 0) },
		"Touch": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			return errors.Join(b.Set("k", "fn", 0), second(b.Touch("k", time.Hour)))
		},
		"Increment": func(_ *keepcache.DB, b *keepcache.Bucket) error { return second(b.Increment("k", 1, 0)) },
		"Delete": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			return errors.Join(second(b.Delete("k")), b.Set("k", "fn", 0))
		},
		"Swap":    func(_ *keepcache.DB, b *keepcache.Bucket) error { return second(b.Swap("k", "fn", 0, nil)) },
		"SetMany": func(_ *keepcache.DB, b *keepcache.Bucket) error { return b.SetMany(map[string]any{"k": 1, "l": 2}, 0) },
		"Update": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			return update(b, "k", func(keepcache.Entry, bool) (any, error) { return 1, nil })
		},
		"CompareAndSwap": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			e, _, err := b.Stat("k")
			return errors.Join(err, second(compareAndSwap(b, "k", e.Revision, 2)))
		},
		"Apply": func(db *keepcache.DB, b *keepcache.Bucket) error {
			var batch keepcache.Batch
			batch.Set(db.Bucket("other"), "k", 1, 0)
			batch.Set(b, "k", 1, 0)
			return db.Apply(&batch)
		},
		"Clear": func(_ *keepcache.DB, b *keepcache.Bucket) error {
			return errors.Join(b.Set("k", 1, 0), b.Clear(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDB(t, nil)
			b := db.Bucket("b")
			require.NoError(t, b.Set("k", 0, 0))
			runs := 0
			err := update(b, "k", func(keepcache.Entry, bool) (any, error) {
				runs++
				return "late", write(db, b)
			})
			require.ErrorIs(t, err, keepcache.ErrContended)
			require.ErrorContains(t, err, "writes the key itself")
			require.LessOrEqual(t, runs, 12)
			var got any
			_, err = b.Get("k", &got)
			require.NoError(t, err)
			require.NotEqual(t, "late", got)
		})
	}
}

// second is the error of a call with two results.
func second[T any](_ T, err error) error { return err }

// An Update that others get before again and again goes on, however often it is, as long as they come to an end.
func TestUpdate_OthersWrite(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	wanted, done := make(chan int), make(chan error)
	go func() {
		for i := range wanted {
			done <- b.Set("k", i, 0)
		}
	}()
	defer close(wanted)
	runs := 0
	require.NoError(t, update(b, "k", func(keepcache.Entry, bool) (any, error) {
		if runs++; runs > 100 {
			return "mine", nil
		}
		wanted <- runs
		return "late", <-done
	}))
	requireValue(t, b, "k", "mine")
}

// An Update in whose function another key is written, also in an Update of that one, is done after one run.
func TestUpdate_WritesOthers(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	mustSet(t, b, "k", 0, 0)
	runs := 0
	require.NoError(t, update(b, "k", func(keepcache.Entry, bool) (any, error) {
		runs++
		return 1, update(b, "l", func(keepcache.Entry, bool) (any, error) { return 2, b.Set("m", 3, 0) })
	}))
	require.Equal(t, 1, runs)
}
