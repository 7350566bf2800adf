package keepcache_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A damaged entry is told of, to a handler whose panic does no harm, and only if it asked for such events.
func TestEvents_Corrupt(t *testing.T) {
	path := newPath(t)
	db := openUnchecked(t, path)
	mustSet(t, db.Bucket("b"), "k", "value", 0)
	require.NoError(t, db.Close())
	patch(t, path, "b", "k", func(stored []byte) []byte {
		stored[len(stored)-1] ^= 1
		return stored
	})
	var told []keepcache.Event
	db = openDamaged(t, path, &keepcache.Options{ReadOnly: true, Events: keepcache.Events{Handle: func(e keepcache.Event) {
		told = append(told, e)
		panic("a handler that fails")
	}}})
	requireAbsent(t, db.Bucket("b"), "other")
	require.Empty(t, told)
	var v any
	found, err := db.Bucket("b").Get("k", &v)
	require.NoError(t, err)
	require.False(t, found)
	require.Len(t, told, 1)
	require.Equal(t, keepcache.EventCorrupt, told[0].Kind)
	require.Equal(t, "corrupt", told[0].Kind.String())
	require.Equal(t, "b", told[0].Bucket)
	require.Equal(t, "k", told[0].Key)
	require.ErrorIs(t, told[0].Err, keepcache.ErrCorrupt)

	quiet := openDamaged(t, path, &keepcache.Options{ReadOnly: true, Events: keepcache.Events{
		Handle: func(keepcache.Event) { t.Error("told of what nobody asked for") }, Kinds: 1 << 31,
	}})
	_, err = quiet.Bucket("b").Get("k", &v)
	require.NoError(t, err)
}

// What happens to a key is told where somebody wants to know: each kind once, with bucket and key.
func TestEvents_Operations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		told := map[string]int{}
		db := newDB(t, &keepcache.Options{Events: keepcache.Events{Kinds: ^keepcache.EventKind(0),
			Handle: func(e keepcache.Event) {
				mu.Lock()
				defer mu.Unlock()
				told[e.Kind.String()+" "+e.Bucket+"/"+e.Key]++
			}}})
		b := db.Bucket("b")
		mustSet(t, b, "k", 1, 0)
		requireValue(t, b, "k", int64(1))
		_, err := b.Get("absent", new(any))
		require.NoError(t, err)
		_, err = b.Delete("k")
		require.NoError(t, err)
		_, err = b.Delete("k")
		require.NoError(t, err)
		opts := &keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour}
		fail := error(nil)
		load := func() {
			t.Helper()
			_, err := b.GetOrLoad(t.Context(), "l", new(any),
				func(context.Context, *keepcache.Load) (any, error) { return 1, fail }, opts)
			require.NoError(t, err)
			synctest.Wait()
		}
		load()
		time.Sleep(time.Minute)
		fail = errors.New("down")
		load()
		for range 3 { // one load, and twice what is remembered of it
			_, err := b.GetOrLoad(t.Context(), "n", new(any), func(context.Context, *keepcache.Load) (any, error) {
				return nil, keepcache.ErrNotFound
			}, &keepcache.LoadOptions{NegativeTTL: time.Minute})
			require.ErrorIs(t, err, keepcache.ErrNotFound)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, map[string]int{
			"set b/k": 1, "hit b/k": 1, "miss b/absent": 1, "delete b/k": 1,
			"miss b/l": 1, "load b/l": 1, "hit b/l": 1, "refresh b/l": 1, "stale b/l": 1, "load-failed b/l": 1,
			"miss b/n": 1, "load b/n": 1, "negative b/n": 2,
		}, told)
		require.Equal(t, "unknown", keepcache.EventKind(1<<31).String())
	})
}

// Who is told of a set of a batch may write to the bucket that the batch has made.
func TestEvents_Batch(t *testing.T) {
	var db *keepcache.DB
	db = newDB(t, &keepcache.Options{Events: keepcache.Events{
		Kinds: keepcache.EventSet,
		Handle: func(e keepcache.Event) {
			if e.Key == "k" {
				mustSet(t, db.Bucket("fresh"), "other", 1, 0)
			}
		},
	}})
	done := make(chan error, 1)
	go func() {
		var batch keepcache.Batch
		batch.Set(db.Bucket("fresh"), "k", 1, 0)
		done <- db.Apply(&batch)
	}()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		panic("Apply waits for itself") // Close would too
	}
	requireValue(t, db.Bucket("fresh"), "k", int64(1))
	requireValue(t, db.Bucket("fresh"), "other", int64(1))
}

// The name of a kind is one word, the same that the command and the protocol take.
func TestEventKind_Names(t *testing.T) {
	seen := make(map[string]bool)
	for kind := keepcache.EventKind(1); kind.String() != "unknown"; kind <<= 1 {
		require.Regexp(t, "^[a-z]+(-[a-z]+)*$", kind.String())
		require.False(t, seen[kind.String()], kind.String())
		seen[kind.String()] = true
	}
	require.Len(t, seen, 17)
}
