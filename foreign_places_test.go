package keepcache_test

import (
	"context"
	"iter"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Values whose code ends in some way.
type (
	rude    struct{ end func() }
	rudeKey struct{ end *func() }
)

func (h rude) MarshalJSON() ([]byte, error)    { h.end(); return []byte("1"), nil }
func (h rudeKey) MarshalText() ([]byte, error) { (*h.end)(); return []byte("k"), nil }
func (h *rude) UnmarshalJSON([]byte) error     { h.end(); return nil }
func (h rude) Write(p []byte) (int, error)     { h.end(); return len(p), nil }

// rudeContext is a context of which each method ends in some way.
type rudeContext struct {
	context.Context
	end func()
}

func (c rudeContext) Err() error                  { c.end(); return nil }
func (c rudeContext) Done() <-chan struct{}       { c.end(); return nil }
func (c rudeContext) Deadline() (time.Time, bool) { c.end(); return time.Time{}, false }

// Code that is not ours and that panics or ends its goroutine, wherever it is called from, costs its own call and
// nothing else.
func TestForeign_Places(t *testing.T) {
	ctx := context.Background()
	exhaust := func(seq iter.Seq2[keepcache.Entry, error], end func()) {
		for range seq {
			end()
		}
	}
	places := map[string]func(db *keepcache.DB, b *keepcache.Bucket, end func()) error{
		"MarshalJSON": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return b.Set("k", []any{1, rude{end}}, 0)
		},
		"MarshalText": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return b.Set("k", map[rudeKey]int{{&end}: 1}, 0)
		},
		"UnmarshalJSON": func(_ *keepcache.DB, b *keepcache.Bucket,
			end func()) error {
			return second(b.Get("k", &rude{end}))
		},
		"Add": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.Add("new", rude{end}, 0))
		},
		"Swap": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.Swap("k", 1, 0, &rude{end}))
		},
		"SetMany": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return b.SetMany(map[string]any{"k": 1, "l": rude{end}}, 0)
		},
		"Batch": func(db *keepcache.DB, b *keepcache.Bucket, end func()) error {
			var batch keepcache.Batch
			batch.Set(b, "k", 1, 0)
			batch.Set(b, "l", rude{end}, 0)
			return db.Apply(&batch)
		},
		"Update": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return update(b, "k", func(keepcache.Entry, bool) (any, error) { end(); return 1, nil })
		},
		"Update, its value": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return update(b, "k", func(keepcache.Entry, bool) (any, error) { return rude{end}, nil })
		},
		"Update that contends": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			runs := 0
			return update(b, "k", func(keepcache.Entry, bool) (any, error) {
				if runs++; runs == 10 { // it has its turn by now, and is suspected
					end()
				}
				done := make(chan error)
				go func() { done <- b.Set("k", runs, 0) }()
				return 1, <-done
			})
		},
		"All": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error { exhaust(b.All(), end); return nil },
		"Scan": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			exhaust(b.Scan(&keepcache.ScanOptions{Stale: true}), end)
			return nil
		},
		"View.All": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			for range keepcache.Of[any](b).All() {
				end()
			}
			return nil
		},
		"loader": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.GetOrLoad(ctx, "loaded", new(any),
				func(context.Context, *keepcache.Load) (any, error) { end(); return 1, nil }, nil))
		},
		"loader, its value": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.GetOrLoad(ctx, "loaded", new(any),
				func(context.Context, *keepcache.Load) (any, error) { return rude{end}, nil }, nil))
		},
		"loader, its destination": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.GetOrLoad(ctx, "loaded", &rude{end},
				func(context.Context, *keepcache.Load) (any, error) { return 1, nil }, nil))
		},
		"loader of many": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.GetOrLoadMany(ctx, []string{"x", "y"}, func(context.Context, []string) (map[string]any, error) {
				return map[string]any{"x": 1, "y": rude{end}}, nil
			}, nil))
		},
		"context of a sweep": func(db *keepcache.DB, _ *keepcache.Bucket, end func()) error {
			return second(db.Sweep(rudeContext{ctx, end}))
		},
		"context of a compaction": func(db *keepcache.DB, _ *keepcache.Bucket, end func()) error {
			return db.Compact(rudeContext{ctx, end})
		},
		"context of a sync": func(db *keepcache.DB, _ *keepcache.Bucket, end func()) error {
			return db.Sync(rudeContext{ctx, end})
		},
		"context of a backup": func(db *keepcache.DB, _ *keepcache.Bucket, end func()) error {
			return db.Backup(rudeContext{ctx, end}, rude{end})
		},
		"context of a load": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.GetOrLoad(rudeContext{ctx, end}, "loaded", new(any),
				func(context.Context, *keepcache.Load) (any, error) { return 1, nil }, nil))
		},
		"context of DeletePrefix": func(_ *keepcache.DB, b *keepcache.Bucket, end func()) error {
			return second(b.DeletePrefix(rudeContext{ctx, end}, "zz"))
		},
		"context of Verify": func(db *keepcache.DB, _ *keepcache.Bucket, end func()) error {
			return second(db.Verify(rudeContext{ctx, end}))
		},
		"writer of a backup": func(db *keepcache.DB, _ *keepcache.Bucket,
			end func()) error {
			return db.Backup(ctx, rude{end})
		},
		"OnClose": func(db *keepcache.DB, _ *keepcache.Bucket, end func()) error { db.OnClose(end); return nil },
	}
	for name, place := range places {
		for how, end := range map[string]func(){"panic": func() { panic("a test") }, "exit": runtime.Goexit} {
			t.Run(name+" "+how, func(t *testing.T) {
				db := newDB(t, &keepcache.Options{CommitInterval: -1})
				b := db.Bucket("b")
				require.NoError(t, b.SetMany(map[string]any{"k": []int{1}, "l": 2, "m": "x"}, 0))
				for range 3 {
					done := make(chan struct{})
					go func() {
						defer close(done)
						defer func() { _ = recover() }()
						_ = place(db, b, end)
					}()
					<-done
				}
				for _, key := range []string{"k", "l", "new", "loaded", "x", "y"} {
					require.NoError(t, update(b, key,
						func(keepcache.Entry, bool) (any, error) { return []any{map[string]any{"a": 1}}, nil }))
					_, err := b.Delete(key)
					require.NoError(t, err)
					var got any
					_, err = b.GetOrLoad(ctx, key, &got, func(context.Context, *keepcache.Load) (any, error) { return 7, nil }, nil)
					require.NoError(t, err)
					require.Equal(t, int64(7), got)
				}
				if runtime.GOOS != "windows" {
					require.NoError(t, db.Compact(ctx))
				}
				beside, err := filepath.Glob(db.Path() + ".*")
				require.NoError(t, err)
				require.Empty(t, beside)
				require.NoError(t, db.Close())
			})
		}
	}
}
