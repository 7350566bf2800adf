package keepcache_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// The answer of a loader reaches its caller, whatever of it cannot be stored; and what was there stays as it was.
func TestLoadAnswer_NotStored(t *testing.T) {
	big := strings.Repeat("x", 2<<20)
	for name, answer := range map[string]func(l *keepcache.Load) string{
		"too large":              func(*keepcache.Load) string { return big },
		"too large with NoStore": func(l *keepcache.Load) string { l.NoStore = true; return big },
		"too large a budget":     func(*keepcache.Load) string { return big[:900<<10] },
		"an ETag too long":       func(l *keepcache.Load) string { l.ETag = big; return "v" },
		"a tag too long":         func(l *keepcache.Load) string { l.Tags = []string{big}; return "v" },
		"too many tags": func(l *keepcache.Load) string {
			l.Tags = strings.Split("a b c d e f g h i j k l m n o p q r", " ")
			return "v"
		},
		"a negative lifetime":   func(l *keepcache.Load) string { l.TTL = -5; return "v" },
		"a negative stale time": func(l *keepcache.Load) string { l.StaleFor = -5; return "v" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failed []keepcache.Event
				db := newDB(t, &keepcache.Options{MaxValueBytes: 1 << 20, MaxBytes: 800 << 10, Events: keepcache.Events{
					Handle: func(e keepcache.Event) { failed = append(failed, e) }, Kinds: keepcache.EventLoadFailed,
				}})
				b := db.Bucket("b")
				_, err := b.GetOrLoad(t.Context(), "k", new(string),
					func(context.Context, *keepcache.Load) (any, error) { return "old", nil },
					&keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
				require.NoError(t, err)
				time.Sleep(time.Minute)
				before, _, err := b.Stat("k")
				require.NoError(t, err)
				var want, got string
				_, err = b.GetOrLoad(t.Context(), "k", &got, func(_ context.Context, l *keepcache.Load) (any, error) {
					want = answer(l)
					return want, nil
				}, &keepcache.LoadOptions{SoftTimeout: time.Minute})
				require.NoError(t, err)
				require.True(t, want == got)
				after, _, err := b.Stat("k")
				require.NoError(t, err)
				require.Equal(t, before, after)
				synctest.Wait() // until it has been told
				if !strings.Contains(name, "NoStore") {
					require.Len(t, failed, 1)
					require.Error(t, failed[0].Err)
					require.Equal(t, uint64(1), db.Stats().Loads.CacheErrors)
				}
				require.Zero(t, db.Stats().Loads.Failures)
			})
		})
	}
}

// GetOrLoadMany hands out what cannot be stored, too.
func TestLoadAnswer_Many(t *testing.T) {
	b := newDB(t, &keepcache.Options{MaxValueBytes: 1 << 20}).Bucket("b")
	big := strings.Repeat("x", 2<<20)
	values, err := keepcache.Of[string](b).GetOrLoadMany(t.Context(), []string{"a", "b", "c"},
		func(context.Context, []string) (map[string]string, error) {
			return map[string]string{"a": "1", "b": big, "c": "3"}, nil
		}, nil)
	require.NoError(t, err)
	require.True(t, len(values) == 3 && values["b"] == big && values["a"] == "1" && values["c"] == "3")
	requireAbsent(t, b, "b")
	requireValue(t, b, "a", "1")
}

type newer struct{ Name string }

// A stored value that does not fit is an error for Get, and a miss for what loads: it is loaded anew and replaced.
func TestLoadAnswer_Mismatch(t *testing.T) {
	load := func(context.Context, *keepcache.Load) (any, error) { return newer{"loaded"}, nil }
	for name, get := range map[string]func(b *keepcache.Bucket, opts *keepcache.LoadOptions) (newer, error){
		"one": func(b *keepcache.Bucket, opts *keepcache.LoadOptions) (got newer, err error) {
			_, err = b.GetOrLoad(context.Background(), "k", &got, load, opts)
			return got, err
		},
		"view": func(b *keepcache.Bucket, opts *keepcache.LoadOptions) (newer, error) {
			return keepcache.Of[newer](b).GetOrLoad(context.Background(), "k",
				func(context.Context, *keepcache.Load) (newer, error) { return newer{"loaded"}, nil }, opts)
		},
		"many": func(b *keepcache.Bucket, opts *keepcache.LoadOptions) (newer, error) {
			values, err := keepcache.Of[newer](b).GetOrLoadMany(context.Background(), []string{"k"},
				func(context.Context, []string) (map[string]newer, error) {
					return map[string]newer{"k": {"loaded"}}, nil
				}, opts)
			return values["k"], err
		},
	} {
		for how, opts := range map[string]keepcache.LoadOptions{
			"fresh": {}, "ahead": {RefreshAhead: 0.5}, "stale": {TTL: time.Hour},
			"soft": {TTL: time.Hour, SoftTimeout: time.Second},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var told []keepcache.Event
					db := newDB(t, &keepcache.Options{Events: keepcache.Events{
						Handle: func(e keepcache.Event) { told = append(told, e) }, Kinds: keepcache.EventLoadFailed,
					}})
					b := db.Bucket("b")
					_, err := b.GetOrLoad(t.Context(), "k", new(any),
						func(context.Context, *keepcache.Load) (any, error) { return "a string", nil },
						&keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour})
					require.NoError(t, err)
					if how == "fresh" || how == "ahead" {
						found, err := b.Get("k", new(newer))
						require.True(t, found)
						require.ErrorIs(t, err, keepcache.ErrMismatch)
					} else {
						time.Sleep(time.Minute)
					}
					before := db.Stats()
					got, err := get(b, &opts)
					require.NoError(t, err)
					require.Equal(t, newer{"loaded"}, got)
					after := db.Stats()
					require.Equal(t, before.Misses+1, after.Misses)
					require.Equal(t, before.Hits, after.Hits)
					require.Equal(t, uint64(1), after.Loads.Mismatched)
					require.Len(t, told, 1)
					require.ErrorIs(t, told[0].Err, keepcache.ErrMismatch)
					_, err = get(b, &opts)
					require.NoError(t, err)
					require.Equal(t, uint64(2), db.Stats().Loads.Loads)
				})
			})
		}
	}
}

// Of a loaded value too that does not fit the error says so, and it hides no others.
func TestLoadAnswer_ManyMismatch(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	mustSet(t, b, "a", 1, 0)
	mustSet(t, b, "b", "text", 0)
	mustSet(t, b, "d", 4, 0)
	_, err := keepcache.Of[map[string]int](b).GetOrLoadMany(t.Context(), []string{"x"},
		func(context.Context, []string) (map[string]map[string]int, error) {
			return map[string]map[string]int{"x": {"y": 1}}, nil
		}, nil)
	require.NoError(t, err)
	values, err := keepcache.Of[picky](b).GetOrLoadMany(t.Context(), []string{"a", "b", "c", "d"},
		func(_ context.Context, keys []string) (map[string]picky, error) {
			require.Equal(t, []string{"b", "c"}, keys)
			return map[string]picky{"b": {2, true}, "c": {3, false}}, nil
		}, nil)
	require.ErrorIs(t, err, keepcache.ErrMismatch)
	require.Equal(t, map[string]picky{"a": {1, false}, "c": {3, false}, "d": {4, false}}, values)
}

// picky is a number that, where it is odd, does not read what it has written.
type picky struct {
	n   int
	odd bool
}

func (p picky) MarshalText() ([]byte, error) { return nil, nil }

func (p picky) MarshalJSON() ([]byte, error) {
	if p.odd {
		return []byte(`"text"`), nil
	}
	return []byte{byte('0' + p.n)}, nil
}

func (p *picky) UnmarshalJSON(text []byte) error {
	if len(text) != 1 {
		return context.Canceled
	}
	p.n = int(text[0] - '0')
	return nil
}

// A request that is served stale after its SoftTimeout is one hit.
func TestLoadAnswer_Counts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLoadScene(t, keepcache.LoadOptions{TTL: time.Minute, StaleFor: time.Hour, SoftTimeout: time.Second})
		s.get("one", false, 1)
		time.Sleep(time.Minute)
		s.answer("two", nil, 2*time.Second)
		before := s.db.Stats()
		s.get("one", true, 2)
		after := s.db.Stats()
		require.Equal(t, before.Misses, after.Misses)
		require.Equal(t, before.Hits+1, after.Hits)
		entries, err := s.b.GetOrLoadMany(t.Context(), []string{"k"}, nil, &s.opts)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		time.Sleep(time.Minute)
	})
}

// The words of an error stand in it once.
func TestUnsupported_Words(t *testing.T) {
	db := newDB(t, nil)
	for _, value := range []any{math.NaN(), make(chan int), map[string]any{"a": []any{func() {}}},
		struct{ F float64 }{math.Inf(1)}} {
		for _, err := range []error{db.Set("k", value, 0), keepcache.Of[any](db.Bucket("b")).Set("k", value, 0)} {
			require.ErrorIs(t, err, keepcache.ErrUnsupportedValue)
			require.Equal(t, 1, strings.Count(err.Error(), "unsupported value: "+""), err.Error())
		}
	}
}

// What somebody else writes while a request is about to load, and does not fit it, is loaded anew, by GetOrLoadMany as
// by GetOrLoad.
func TestLoadAnswer_MismatchMeanwhile(t *testing.T) {
	for _, many := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			writes := 0
			_, b := recursive(t, keepcache.Options{}, keepcache.EventMiss, func(b *keepcache.Bucket, e keepcache.Event) {
				if writes++; writes == 1 {
					mustSet(t, b, e.Key, "no number", 0)
				}
			})
			v, got := keepcache.Of[int](b), 0
			var err error
			if many {
				var all map[string]int
				all, err = v.GetOrLoadMany(t.Context(), []string{"k"},
					func(context.Context, []string) (map[string]int, error) { return map[string]int{"k": 1}, nil }, nil)
				got = all["k"]
			} else {
				got, err = v.GetOrLoad(t.Context(), "k", func(context.Context, *keepcache.Load) (int, error) { return 1, nil }, nil)
			}
			require.NoError(t, err)
			require.Equal(t, 1, got)
			requireValue(t, b, "k", int64(1))
		})
	}
}
