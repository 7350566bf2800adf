package keepcache_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

func init() { children["extreme options"] = extremeOptions }

// Whatever number a field of the options has, Open refuses it and says which field it is, or opens a cache that works
// and that takes no more memory than what it holds. A process of its own runs it, because what is wrong ends the
// process.
func TestOptions_Extreme(t *testing.T) {
	t.Parallel()
	out, err := childCommand("extreme options", t.TempDir()).Output()
	require.NoError(t, err, "%s", out)
}

// documented are the extreme values that the fields promise to take.
var documented = map[string]bool{
	"DefaultTTL -1": true, "SyncInterval -1": true, "MaxBytes -1": true, "MemoryBytes -1": true, "JournalBytes -1": true,
	"CommitInterval -1": true, "CommitBytes -1": true, "CompactBytes -1": true, "MaxValueBytes -1": true,
	"SweepInterval -1": true,
	"LockTimeout -1":   true, "Buckets.DefaultTTL -1": true, "Buckets.MaxBytes -1": true, "Buckets.MaxEntries -1": true,
}

func extremeOptions(t tester, args []string) {
	left := len(documented)
	values := []int64{math.MinInt64, -2, -1, 0, 1, 1 << 40, math.MaxInt64}
	try := func(name string, value int64, o *keepcache.Options) {
		refused := tryExtreme(t, filepath.Join(args[0], "x.cache"), o)
		id := fmt.Sprintf("%s %d", name, value)
		switch {
		case refused == nil:
		case documented[id]:
			require.NoError(t, refused, id)
		default:
			field := name[strings.LastIndex(name, ".")+1:]
			require.ErrorContains(t, refused, "option ", id)
			require.ErrorContains(t, refused, field, id)
		}
		require.False(t, refused == nil && value < -1, "%s is taken", id)
		if documented[id] {
			left--
		}
	}
	each(reflect.TypeFor[keepcache.Options](), values, func(name string, i int, value int64) {
		var o keepcache.Options
		reflect.ValueOf(&o).Elem().Field(i).SetInt(value)
		try(name, value, &o)
	})
	each(reflect.TypeFor[keepcache.BucketOptions](), values, func(name string, i int, value int64) {
		var b keepcache.BucketOptions
		reflect.ValueOf(&b).Elem().Field(i).SetInt(value)
		try("Buckets."+name, value, &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"b": b}})
	})
	require.Zero(t, left, "a documented value was not tried")
}

// each calls fn for each field of a struct that is a number, and each value that fits it.
func each(typ reflect.Type, values []int64, fn func(name string, i int, value int64)) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		if !f.IsExported() || f.Type.Kind() != reflect.Int && f.Type.Kind() != reflect.Int64 {
			continue
		}
		for _, v := range values {
			if !reflect.Zero(f.Type).OverflowInt(v) {
				fn(f.Name, i, v)
			}
		}
	}
}

// tryExtreme opens, uses and closes a cache. It returns why Open refused to.
func tryExtreme(t tester, path string, o *keepcache.Options) (refused error) {
	const mostAllocated = 16 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	db, err := keepcache.Open(path, o)
	if err != nil {
		return err
	}
	b := db.Bucket("b")
	for i := range 100 {
		require.NoError(t, b.Set(fmt.Sprint("key", i), i, 0))
		_, err := b.Exists(fmt.Sprint("absent", i))
		require.NoError(t, err)
	}
	require.NoError(t, b.Set("last", 7, time.Hour))
	var got int
	found, err := b.Get("last", &got)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, 7, got)
	require.NoError(t, db.Close())
	db, err = keepcache.Open(path, o)
	require.NoError(t, err)
	found, err = db.Bucket("b").Exists("last")
	require.NoError(t, err)
	require.True(t, found)
	require.NoError(t, db.Close())
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(mostAllocated))
	require.NoError(t, os.Remove(path))
	return nil
}
