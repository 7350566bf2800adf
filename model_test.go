package keepcache_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// The cache does what a plain map with deadlines does, whatever the operations, through reopens and crashes.
func TestModel(t *testing.T) {
	setFlag(t, "rapid.checks", effort.Of("15", "60"))
	if long { // 100,000 operations
		setFlag(t, "rapid.checks", "280")
		setFlag(t, "rapid.steps", "400")
	}
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m := &model{want: map[string]map[string]wanted{}, opts: &keepcache.Options{
				DefaultTTL:    rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "default"),
				SweepInterval: rapid.SampledFrom([]time.Duration{-1, time.Second, 7 * time.Minute}).Draw(t, "sweep interval"),
			}}
			m.path = modelPath(t)
			m.db = open(t, m.path, m.opts)
			t.Repeat(m.actions())
			modelSteps += m.steps
		})
	})
	t.Logf("%d operations", modelSteps)
}

var modelSteps int

func setFlag(t *testing.T, name, value string) {
	f := flag.Lookup(name)
	old := f.Value.String()
	require.NoError(t, f.Value.Set(value))
	t.Cleanup(func() { _ = f.Value.Set(old) })
}

// modelPath is newPath for a rapid test.
func modelPath(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "keepcache-model-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "test.cache")
}

// wanted is an entry of the model.
type wanted struct {
	value any
	bytes []byte    // of SetBytes; then value is unused
	until time.Time // zero: never
}

func (w wanted) live() bool { return w.until.IsZero() || time.Now().Before(w.until) }

// model is a cache beside the map that it should equal.
type model struct {
	path  string
	opts  *keepcache.Options
	db    *keepcache.DB
	want  map[string]map[string]wanted // nil for a bucket that does not exist
	steps int
}

var (
	modelBuckets = []string{"default", "two"}
	modelKeys    = []string{"a", "aa", "a*", "ab", "b", "\x00", "\xff", "\xff\xff", "k/1", strings.Repeat("k", 5000)}
	modelTTLs    = []time.Duration{0, 0, keepcache.NoExpiry, 1, time.Millisecond, 1500 * time.Microsecond, time.Second,
		time.Minute, time.Hour, 1<<63 - 2}
)

// modelValue draws a value in the form in which Get returns it.
func modelValue(t *rapid.T, depth int) any {
	kinds := []string{"nil", "bool", "string", "int", "uint", "float", "large"}
	if depth > 0 {
		kinds = append(kinds, "array", "object")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "bool":
		return rapid.Bool().Draw(t, "bool")
	case "string":
		return rapid.String().Draw(t, "string")
	case "int":
		return rapid.Int64().Draw(t, "int")
	case "uint":
		return rapid.Uint64Min(1<<63).Draw(t, "uint")
	case "float":
		return rapid.Float64Range(-1e300, 1e300).Draw(t, "float")
	case "large":
		return strings.Repeat("large ", rapid.IntRange(1, 5000).Draw(t, "words"))
	case "array":
		a := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "len") {
			a = append(a, modelValue(t, depth-1))
		}
		return a
	case "object":
		o := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "len") {
			o[rapid.String().Draw(t, "key")] = modelValue(t, depth-1)
		}
		return o
	}
	return nil
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":                m.compare,
		"set":             m.set,
		"set again":       m.set, // the more often an action is named the more often it is drawn
		"set bytes":       m.setBytes,
		"set wrongly":     m.setWrongly,
		"add":             m.add,
		"delete":          m.delete,
		"touch":           m.touch,
		"delete prefix":   m.deletePrefix,
		"clear":           m.clear,
		"drop":            m.drop,
		"iterate":         m.iterate,
		"sweep":           m.sweep,
		"verify":          func(t *rapid.T) { sound(t, m.db) },
		"sleep":           m.sleep,
		"sleep to an end": m.sleepToEnd,
		"reopen":          func(t *rapid.T) { m.db = reopen(t, m.db, m.path, m.opts) },
		"crash":           m.crash,
	}
}

func (m *model) bucket(t *rapid.T) (*keepcache.Bucket, string) {
	name := rapid.SampledFrom(modelBuckets).Draw(t, "bucket")
	return m.db.Bucket(name), name
}

func (m *model) key(t *rapid.T) string { return rapid.SampledFrom(modelKeys).Draw(t, "key") }

// ttl draws a lifetime and returns the deadline that comes of it.
func (m *model) ttl(t *rapid.T) (time.Duration, time.Time) {
	ttl := rapid.SampledFrom(modelTTLs).Draw(t, "ttl")
	effective := ttl
	if ttl == 0 {
		effective = m.opts.DefaultTTL
	}
	if effective == 0 || effective == keepcache.NoExpiry {
		return ttl, time.Time{}
	}
	until := time.Now().Add(effective)
	if up := until.Truncate(time.Millisecond); up.Before(until) {
		until = up.Add(time.Millisecond)
	}
	return ttl, until
}

func (m *model) store(bucket, key string, w wanted) {
	if m.want[bucket] == nil {
		m.want[bucket] = map[string]wanted{}
	}
	m.want[bucket][key] = w
}

func (m *model) isLive(bucket, key string) bool {
	w, ok := m.want[bucket][key]
	return ok && w.live()
}

func (m *model) set(t *rapid.T) {
	b, name := m.bucket(t)
	key, value := m.key(t), modelValue(t, 3)
	ttl, until := m.ttl(t)
	mustSet(t, b, key, value, ttl)
	m.store(name, key, wanted{value: value, until: until})
}

func (m *model) setBytes(t *rapid.T) {
	b, name := m.bucket(t)
	key, value := m.key(t), rapid.SliceOf(rapid.Byte()).Draw(t, "value")
	ttl, until := m.ttl(t)
	require.NoError(t, b.SetBytes(key, value, ttl))
	m.store(name, key, wanted{bytes: append([]byte{}, value...), until: until})
}

func (m *model) setWrongly(t *rapid.T) {
	b, _ := m.bucket(t)
	require.ErrorIs(t, b.Set(m.key(t), 1, -time.Second), keepcache.ErrInvalidTTL)
	require.ErrorIs(t, b.Set(m.key(t), make(chan int), time.Second), keepcache.ErrUnsupportedValue)
	require.ErrorIs(t, b.Set("", 1, time.Second), keepcache.ErrInvalidKey)
}

func (m *model) add(t *rapid.T) {
	b, name := m.bucket(t)
	key, value := m.key(t), modelValue(t, 1)
	ttl, until := m.ttl(t)
	added, err := b.Add(key, value, ttl)
	require.NoError(t, err)
	require.Equal(t, !m.isLive(name, key), added)
	if added {
		m.store(name, key, wanted{value: value, until: until})
	}
}

func (m *model) delete(t *rapid.T) {
	b, name := m.bucket(t)
	key := m.key(t)
	found, err := b.Delete(key)
	require.NoError(t, err)
	require.Equal(t, m.isLive(name, key), found)
	delete(m.want[name], key)
}

func (m *model) touch(t *rapid.T) {
	b, name := m.bucket(t)
	key := m.key(t)
	ttl, until := m.ttl(t)
	found, err := b.Touch(key, ttl)
	require.NoError(t, err)
	require.Equal(t, m.isLive(name, key), found)
	if found {
		w := m.want[name][key]
		w.until = until
		m.want[name][key] = w
	}
}

func (m *model) deletePrefix(t *rapid.T) {
	b, name := m.bucket(t)
	prefix := rapid.SampledFrom([]string{"a", "a*", "\xff", "k", "none", "b"}).Draw(t, "prefix")
	n := 0
	for key, w := range m.want[name] {
		if strings.HasPrefix(key, prefix) {
			if w.live() {
				n++
			}
			delete(m.want[name], key)
		}
	}
	deleted, err := b.DeletePrefix(context.Background(), prefix)
	require.NoError(t, err)
	require.Equal(t, n, deleted)
}

func (m *model) clear(t *rapid.T) {
	b, name := m.bucket(t)
	require.NoError(t, b.Clear(context.Background()))
	clear(m.want[name])
}

func (m *model) drop(t *rapid.T) {
	_, name := m.bucket(t)
	found, err := m.db.DropBucket(name)
	require.NoError(t, err)
	require.True(t, !found || m.want[name] != nil)
	require.True(t, found || !m.hasLive(name))
	delete(m.want, name)
}

func (m *model) iterate(t *rapid.T) {
	b, name := m.bucket(t)
	prefix := rapid.SampledFrom([]string{"", "a", "\xff", "k"}).Draw(t, "prefix")
	want := []string{}
	for key, w := range m.want[name] {
		if strings.HasPrefix(key, prefix) && w.live() {
			want = append(want, key)
		}
	}
	slices.Sort(want)
	require.Equal(t, want, keys(t, b, prefix))
}

func (m *model) sweep(t *rapid.T) {
	_, err := m.db.Sweep(context.Background())
	require.NoError(t, err)
	report := sound(t, m.db)
	require.Zero(t, report.Expired)
	require.Zero(t, report.Pending)
}

func (m *model) sleep(t *rapid.T) {
	time.Sleep(rapid.SampledFrom([]time.Duration{1, 333 * time.Microsecond, time.Millisecond, time.Second, time.Minute,
		time.Hour}).Draw(t, "nap"))
}

// sleepToEnd sleeps until the deadline of an entry, or a nanosecond less.
func (m *model) sleepToEnd(t *rapid.T) {
	_, name := m.bucket(t)
	w := m.want[name][m.key(t)]
	left := time.Until(w.until) - time.Duration(rapid.IntRange(0, 1).Draw(t, "short of it"))
	if !w.until.IsZero() && left > 0 && left <= time.Hour {
		time.Sleep(left)
	}
}

// crash goes on with a copy of the files as they are while the cache is open.
func (m *model) crash(t *rapid.T) {
	synctest.Wait() // a sweep that is under way would tear the copy, which no crash does
	m.path = crashCopy(t, m.path, filepath.Join(filepath.Dir(m.path), fmt.Sprint("crashed", m.steps)))
	m.db = open(t, m.path, m.opts)
}

// hasLive reports whether a bucket has a live entry.
func (m *model) hasLive(name string) bool {
	return slices.ContainsFunc(modelKeys, func(key string) bool { return m.isLive(name, key) })
}

// compare compares all that can be asked.
func (m *model) compare(t *rapid.T) {
	m.steps++
	names, err := m.db.Buckets()
	require.NoError(t, err)
	for _, name := range names {
		require.Contains(t, m.want, name)
	}
	for name := range m.want {
		if m.hasLive(name) { // one without entries may have been dropped by a sweep
			require.Contains(t, names, name)
		}
	}
	for _, name := range modelBuckets {
		b, live := m.db.Bucket(name), 0
		for _, key := range modelKeys {
			if !m.isLive(name, key) {
				requireAbsent(t, b, key)
				continue
			}
			live++
			w := m.want[name][key]
			if w.bytes != nil {
				got, found, err := b.GetBytes(key)
				require.NoError(t, err)
				require.True(t, found)
				require.Equal(t, w.bytes, got)
			} else {
				requireValue(t, b, key, w.value)
			}
			entry, found, err := b.Stat(key)
			require.NoError(t, err)
			require.True(t, found)
			ttl := time.Duration(keepcache.NoExpiry)
			if w.until.IsZero() {
				require.True(t, entry.ExpiresAt.IsZero())
			} else {
				require.Equal(t, w.until.UnixMilli(), entry.ExpiresAt.UnixMilli())
				ttl = min(time.Until(w.until), keepcache.NoExpiry-1)
			}
			if ttl == keepcache.NoExpiry && !w.until.IsZero() { // farther than a Duration reaches
				got, _, err := b.TTL(key)
				require.NoError(t, err)
				require.GreaterOrEqual(t, got, time.Duration(keepcache.NoExpiry)-1)
				continue
			}
			requireTTL(t, b, key, ttl)
		}
		n, err := b.Len()
		require.NoError(t, err)
		require.Equal(t, live, n)
	}
}
