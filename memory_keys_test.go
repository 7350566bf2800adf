package keepcache_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// Who keeps a key that the cache gave him does not keep the value alive beside which memory had it.
func TestMemory_Keys(t *testing.T) {
	const entries, size = 16, 1 << 20
	for _, how := range []string{"range", "SetMany", "Batch", "expired"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var kept []string
				o := &keepcache.Options{CommitInterval: time.Hour, CommitBytes: 64 << 20, SweepInterval: -1,
					MemoryBytes: 128 << 20, JournalBytes: 64 << 20}
				if how != "range" {
					o.Events = keepcache.Events{
						Kinds: keepcache.EventSet | keepcache.EventExpire,
						Handle: func(e keepcache.Event) {
							mu.Lock()
							defer mu.Unlock()
							if how != "expired" || e.Kind == keepcache.EventExpire {
								kept = append(kept, e.Key)
							}
						},
					}
				}
				db := newDB(t, o)
				b := db.Bucket("b")
				value := make([]byte, size)
				before := heapBytes()
				many, batch := map[string]any{}, keepcache.Batch{}
				for i := range entries {
					switch how {
					case "SetMany":
						many[numbered(i)] = value
					case "Batch":
						batch.Set(b, numbered(i), value, 0)
					default:
						require.NoError(t, b.SetBytes(numbered(i), value, time.Minute))
					}
				}
				require.NoError(t, b.SetMany(many, 0))
				require.NoError(t, db.Apply(&batch))
				require.Greater(t, heapBytes(), before+entries*size/2)
				switch how {
				case "range":
					for e, err := range b.All() {
						require.NoError(t, err)
						kept = append(kept, e.Key)
					}
				case "expired":
					time.Sleep(time.Hour)
					_, err := db.Sweep(context.Background())
					require.NoError(t, err)
				}
				synctest.Wait()
				mu.Lock()
				require.Len(t, kept, entries)
				mu.Unlock()
				require.NoError(t, b.Clear(context.Background()))
				_, err := db.Sweep(context.Background())
				require.NoError(t, err)
				require.Less(t, heapBytes(), before+entries*size/2)
				runtime.KeepAlive(value)
				mu.Lock()
				require.Len(t, kept, entries)
				mu.Unlock()
			})
		})
	}
}

// heapBytes returns how many bytes are in use, once nothing of them is garbage.
func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
