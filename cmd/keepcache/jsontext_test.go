package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsontext"
)

func openCache(t *testing.T, path string) *keepcache.DB {
	t.Helper()
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		report, err := db.Verify(t.Context())
		if err == nil { // a test may have closed it
			require.Empty(t, report.Problems)
		}
		require.NoError(t, db.Close())
	})
	return db
}

// hardValues are values that a careless export changes.
func hardValues() map[string]any {
	huge, _ := new(big.Int).SetString("1"+strings.Repeat("0", 40), 10)
	return map[string]any{
		"null":          nil,
		"float 1.0":     1.0,
		"-0.0":          math.Copysign(0, -1),
		"2^53+1":        int64(1)<<53 + 1,
		"min int64":     int64(math.MinInt64),
		"max uint64":    uint64(math.MaxUint64),
		"10^40":         huge,
		"float 1e20":    1e20,
		"float 1e21":    1e21,
		"float 2^53":    float64(1 << 53),
		"smallest":      5e-324,
		"largest":       1.7e308,
		"float32":       float32(0.1),
		"float32 whole": float32(123456792),
		"float32 max":   float32(math.MaxFloat32),
		"bytes":         []byte{0, 255, 254, '\n'},
		"no bytes":      []byte{},
		"empty list":    []any{},
		"empty object":  map[string]any{},
		"string":        "<a href=\"x\">&\u2028\x00\x1b\u009b 世界 😀",
		"nested":        map[string]any{"z": []any{1, 1.0, "1.0", nil, true, map[string]any{"f": 2.0, "i": 2}}, "a": -3.0},
		"literal":       json.Number("1.50"),
		"literal 1.0":   json.RawMessage(`1.0`),
		"mixed":         []any{1.0, json.RawMessage(`[1.0,{"x":2.0}]`), 3, 4.0},
		"too large":     json.RawMessage(`[1e400,7.0,1.25,{"a":8.0}]`),
		"twice":         json.RawMessage(`{"b":1,"a":{"x":1},"a":{"y":2.5}}`),
		"time":          time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		"depth":         json.RawMessage(strings.Repeat("[", 900) + "1.0" + strings.Repeat("]", 900)),
	}
}

// look returns everything that Get can say about a key.
func look(t *testing.T, db *keepcache.DB, bucket, key string) map[string]string {
	t.Helper()
	b := db.Bucket(bucket)
	seen := make(map[string]string)
	get := func(name string, dst any) {
		found, err := b.Get(key, dst)
		text := "absent"
		if found {
			text = fmt.Sprintf("%#v", dereference(dst))
		}
		if err != nil {
			text += ", error " + fmt.Sprintf("%T", unwrapAll(err))
		}
		seen[name] = text
	}
	get("any", new(any))
	get("int", new(int))
	get("uint64", new(uint64))
	get("float64", new(float64))
	get("float32", new(float32))
	get("number", new(json.Number))
	get("string", new(string))
	get("bytes", new([]byte))
	get("list", new([]any))
	get("numbers", new([]json.Number))
	get("object", new(map[string]any))
	get("time", new(time.Time))
	get("struct", new(struct{ A, B struct{ X, Y float64 } }))
	var raw json.RawMessage
	_, err := b.Get(key, &raw)
	require.NoError(t, err)
	n, err := jsontext.Parse(raw)
	require.NoError(t, err)
	seen["json"] = string(n.Append(nil, &jsontext.Literals{}))
	return seen
}

func dereference(p any) any {
	switch p := p.(type) {
	case *any:
		if f, ok := (*p).(float64); ok {
			return fmt.Sprintf("float64 %x", math.Float64bits(f))
		}
		return *p
	case *float64:
		return math.Float64bits(*p)
	case *float32:
		return math.Float32bits(*p)
	case *[]any:
		return *p
	case *[]byte:
		return *p
	case *map[string]any:
		return *p
	case *time.Time:
		return p.Format(time.RFC3339Nano)
	case *json.Number:
		return *p
	case *[]json.Number:
		return *p
	case *int:
		return *p
	case *uint64:
		return *p
	case *string:
		return *p
	case *struct{ A, B struct{ X, Y float64 } }:
		return *p
	}
	panic(fmt.Sprintf("%T", p))
}

func unwrapAll(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || inner.Unwrap() == nil {
			return err
		}
		err = inner.Unwrap()
	}
}

// TestExportImport ensures that every Get and every deadline is the same after an export and an import.
func TestExportImport(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.cache"), filepath.Join(dir, "to.cache")
	hostile := []string{"plain", "\x00", "\xff\xfe", "a\nb", "\"", "sp ace", "\u202e",
		strings.Repeat("k", keepcache.MaxKeyBytes)}
	buckets := []string{keepcache.DefaultBucket, "\xff\x00bucket", strings.Repeat("\x80", keepcache.MaxNameBytes)}

	db := openCache(t, from)
	lifetimes := []time.Duration{keepcache.NoExpiry, time.Hour, 50 * 365 * day, 1234567891 * time.Microsecond}
	i := 0
	for _, bucket := range buckets {
		for _, key := range hostile {
			i++
			require.NoError(t, db.Bucket(bucket).Set(key, i, lifetimes[i%len(lifetimes)]))
		}
	}
	for name, v := range hardValues() {
		i++
		require.NoError(t, db.Set(name, v, lifetimes[i%len(lifetimes)]), name)
	}
	require.NoError(t, db.Set("short", 1, time.Hour))
	require.NoError(t, db.Close())

	var out, words, again strings.Builder
	require.Zero(t, run([]string{"export", "--file", from}, nil, &out, &words), &words)
	expired := regexp.MustCompile(`"expires_at_ms":\d+,"key":"short"`)
	exported := expired.ReplaceAllString(out.String(), `"expires_at_ms":1,"key":"short"`)
	require.Equal(t, fmt.Sprintf("exported %d entries\n", i+1), words.String())
	for line := range strings.Lines(exported) {
		require.True(t, json.Valid([]byte(line)), line)
	}
	words.Reset()
	require.Zero(t, run([]string{"import", "--file", to}, strings.NewReader(exported), &again, &words), &words)
	require.Equal(t, fmt.Sprintf("imported %d entries, skipped 1 that had expired\n", i), words.String())
	require.Empty(t, again.String())

	a, b := openCache(t, from), openCache(t, to)
	names, err := b.Buckets()
	require.NoError(t, err)
	for _, bucket := range names {
		for e, err := range a.Bucket(bucket).All() {
			require.NoError(t, err)
			if e.Key == "short" {
				continue
			}
			require.Equal(t, look(t, a, bucket, e.Key), look(t, b, bucket, e.Key), "%q", e.Key)
			other, found, err := b.Bucket(bucket).Stat(e.Key)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, e.ExpiresAt, other.ExpiresAt, "%q", e.Key)
		}
	}
	require.Equal(t, a.Stats().Entries-1, b.Stats().Entries)
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())

	// A second round gives the very same text, but for the entry that expired.
	require.Zero(t, run([]string{"export", "--file", to}, nil, &again, &words), &words)
	var want strings.Builder
	for line := range strings.Lines(exported) {
		if !strings.Contains(line, `"key":"short"`) {
			want.WriteString(line)
		}
	}
	require.Equal(t, want.String(), again.String())
}

// TestImport_Order ensures that of two lines with one key the later one wins, also within a batch.
func TestImport_Order(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	var text, words strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&text, `{"bucket":"default","key":"k%d","value":%d}`+"\n", i%700, i)
	}
	require.Zero(t, run([]string{"import", "--file", path}, strings.NewReader(text.String()), &words, &words), &words)
	require.Equal(t, "imported 3,000 entries\n", words.String())
	db := openCache(t, path)
	for k := range 700 {
		var got int
		_, err := db.Get(fmt.Sprintf("k%d", k), &got)
		require.NoError(t, err)
		last := 2999 - (2999-k)%700
		require.Equal(t, last, got)
	}
}

// endless is input that never has a line end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestDeep ensures that nesting is refused without much ado, however objects repeat their members.
func TestDeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	for depth, want := range map[int]int{900: exitOK, 1001: exitError, 9000: exitError, 20000: exitUsage} {
		text := strings.Repeat(`{"a":1.0,"a":`, depth) + "1.0" + strings.Repeat("}", depth)
		var out, words strings.Builder
		require.Equal(t, want, run([]string{"set", "k", "-", "--file", path}, strings.NewReader(text), &out, &words), &words)
	}
}

// TestBounds ensures that input without end is refused, not collected.
func TestBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	for _, args := range [][]string{
		{"set", "k", "-", "--max-value-bytes", "1000"},
		{"set", "k", "-", "--string", "--max-value-bytes", "1000"},
		{"import", "--max-value-bytes", "1000"},
	} {
		var out, words strings.Builder
		require.Equal(t, exitError, run(append(args, "--file", path), endless{}, &out, &words))
		require.Contains(t, words.String(), " bytes")
	}
}
