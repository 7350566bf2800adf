package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
)

// TestExportImport_Exact ensures that entries come back with all that they say, from a file, from beside a program that
// has it open, and from and to a program that shows it.
func TestExportImport_Exact(t *testing.T) {
	dir, err := os.MkdirTemp("", "kc") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := 150
	if os.Getenv("KEEPCACHE_LONG") != "" {
		n = 1000
	}
	options := &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"\xffs": {Sliding: true}}}
	from, err := keepcache.Open(filepath.Join(dir, "from"), options)
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(7, 7))
	for i := range n {
		exactEntry(t, rnd, from, i)
	}
	waitIdle(t, from)
	want := keptIn(t, from)
	require.Len(t, want, n)

	do := func(in string, args ...string) string {
		t.Helper()
		var out, words strings.Builder
		require.Zero(t, run(args, strings.NewReader(in), &out, &words), &words)
		return out.String()
	}
	beside := do("", "export", "--file", from.Path())
	stop, err := inspect.Listen(from, &inspect.Options{ShowValues: true})
	require.NoError(t, err)
	shown := do("", "export", "--file", from.Path())
	require.NoError(t, stop())
	require.NoError(t, from.Close())
	closed := do("", "export", "--file", from.Path())
	require.Equal(t, closed, beside)
	require.Equal(t, closed, shown)

	into := filepath.Join(dir, "to")
	do(closed, "import", "--file", into)
	to := openCache(t, into)
	require.Equal(t, want, keptIn(t, to))

	program := openCache(t, filepath.Join(dir, "program"))
	stop, err = inspect.Listen(program, &inspect.Options{AllowWrites: true})
	require.NoError(t, err)
	do(closed, "import", "--file", program.Path())
	require.NoError(t, stop())
	require.Equal(t, want, keptIn(t, program))

	require.NoError(t, to.InvalidateTags("t1"))
	for key, e := range want {
		got, found, err := to.Bucket(e.bucket).Stat(e.Key)
		require.NoError(t, err)
		invalid := false
		for _, tag := range e.Tags {
			invalid = invalid || tag == "t1"
		}
		require.Equal(t, !invalid && !e.Negative, found, "%q %v", key, got)
	}
}

// kept is an entry as it is compared.
type kept struct {
	keepcache.Entry
	bucket, value string
}

// keptIn returns all entries of a cache. Bytes are the text that they are read as, so sizes do not count.
func keptIn(t *testing.T, db *keepcache.DB) map[string]kept {
	t.Helper()
	all := make(map[string]kept)
	names, err := db.Buckets()
	require.NoError(t, err)
	for _, name := range names {
		for e, err := range db.Bucket(name).Scan(&keepcache.ScanOptions{Stale: true}) {
			require.NoError(t, err)
			value, err := e.AppendJSON(nil)
			require.NoError(t, err)
			all[name+"/"+e.Key] = kept{keepcache.Entry{
				Key: e.Key, WrittenAt: e.WrittenAt, ExpiresAt: e.ExpiresAt, StaleUntil: e.StaleUntil, LoadedAt: e.LoadedAt,
				ETag: e.ETag, Tags: e.Tags,
				RetryAt: e.RetryAt, Sliding: e.Sliding, Negative: e.Negative,
			}, name, string(value)}
		}
	}
	return all
}

// exactEntry makes an entry as programs do.
func exactEntry(t *testing.T, rnd *rand.Rand, db *keepcache.DB, i int) {
	t.Helper()
	ctx, key := context.Background(), fmt.Sprint("k", i)
	tags := []string{"t1", "\xff", "t2"}[:rnd.IntN(4)]
	b := db.Bucket([]string{"default", "\xffs"}[rnd.IntN(2)]).WithTags(tags...)
	opts := &keepcache.LoadOptions{
		TTL:         []time.Duration{keepcache.NoExpiry, time.Hour, 1234567891 * time.Microsecond}[rnd.IntN(3)],
		NegativeTTL: time.Hour,
		StaleFor:    []time.Duration{0, time.Minute, keepcache.NoExpiry}[rnd.IntN(3)],
	}
	var dst any
	etag := []string{"", "e1", "\xfe"}[rnd.IntN(3)]
	load := func(err error) {
		_, _ = b.GetOrLoad(ctx, key, &dst, func(_ context.Context, l *keepcache.Load) (any, error) {
			l.ETag = etag
			return map[string]any{"i": i, "f": 1.0}, err
		}, opts)
	}
	switch rnd.IntN(5) {
	case 0:
		require.NoError(t, b.SetBytes(key, []byte{0, byte(i), 0xff}, opts.TTL))
	case 1:
		load(keepcache.ErrNotFound)
	case 2: // stale, and its next load has failed
		e := keepcache.Entry{Key: key, ExpiresAt: time.Now().Add(-time.Hour), StaleUntil: time.Now().Add(time.Hour),
			Tags: tags}
		require.NoError(t, b.Restore(e, i))
		load(errors.New("down"))
	case 3:
		load(nil)
	default:
		require.NoError(t, b.Set(key, []any{i, 2.0, nil, "x"}, opts.TTL))
	}
}

// waitIdle returns when no load is under way: a stale value is loaded anew in the background.
func waitIdle(t *testing.T, db *keepcache.DB) {
	t.Helper()
	for range 1000 {
		busy := false
		for _, e := range keptIn(t, db) {
			busy = busy || e.ExpiresAt.Before(time.Now()) && !e.ExpiresAt.IsZero() && e.RetryAt.IsZero()
		}
		if !busy {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("loads have not ended")
}

// TestImport_Lines reads what is written by hand, and lines of the form that had no more than a deadline.
func TestImport_Lines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	imported := func(line string) (string, *keepcache.Entry) {
		t.Helper()
		var out, words strings.Builder
		_ = run([]string{"import", "--file", path}, strings.NewReader(line), &out, &words)
		db := openCache(t, path)
		defer db.Close()
		e, found, err := db.Bucket("b").Stat("k")
		require.NoError(t, err)
		if !found {
			return words.String(), nil
		}
		return words.String(), &e
	}
	before := time.Now()
	_, e := imported(`{"bucket":"b","expires_at_ms":33333333333333,"key":"k","value":1}`)
	require.Equal(t, int64(33333333333333), e.ExpiresAt.UnixMilli())
	require.Equal(t, e.ExpiresAt, e.StaleUntil)
	require.False(t, e.WrittenAt.Before(before.Truncate(time.Millisecond)))
	require.Empty(t, e.Tags)

	_, e = imported(`{"bucket":"b","key":"k","value":1,"ttl_ms":60000,"tags":["a",{"base64":"/w=="}],"stale_until_ms":-1,"sliding_ms":60000}`)
	require.False(t, e.ExpiresAt.Before(before.Add(time.Minute).Truncate(time.Millisecond)))
	require.Less(t, time.Until(e.ExpiresAt), time.Minute+time.Second)
	require.True(t, e.StaleUntil.IsZero())
	require.Equal(t, []string{"a", "\xff"}, e.Tags)
	require.Equal(t, time.Minute, e.Sliding)
	_, e = imported(`{"bucket":"b","key":"k","value":1,"ttl_ms":-1}`)
	require.True(t, e.ExpiresAt.IsZero() && e.StaleUntil.IsZero())
	require.Empty(t, e.Tags)

	for line, want := range map[string]string{
		`"ttl_ms":0`:  "ttl_ms is 0",
		`"ttl_ms":-2`: "ttl_ms is -2",
		`"ttl_ms":1000,"expires_at_ms":4000000000000`:      "it has both expires_at_ms and ttl_ms",
		`"stale_until_ms":4000000000000`:                   "stale_until_ms is before it expires",
		`"stale_until_ms":1,"expires_at_ms":4000000000000`: "stale_until_ms is before it expires",
		`"sliding_ms":-1`:                                  "sliding_ms is -1",
		`"tags":[""]`:                                      "invalid tag",
		`"tags":"a"`:                                       "tags cannot be string",
		`"etag":"a","etag_base64":"/w=="`:                  "it has both etag and etag_base64",
		`"revision":1`:                                     `unknown field "revision"`,
	} {
		words, after := imported(`{"bucket":"b","key":"k","value":2,` + line + `}`)
		require.Contains(t, words, "line 1: ", line)
		require.Contains(t, words, want, line)
		require.Equal(t, e.Revision, after.Revision, line)
	}
}
