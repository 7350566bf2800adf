package keepcache_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A call for many keys with none of them checks what does not depend on a key, as it does with some.
func TestMany_None(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	tooMany := make([]string, keepcache.MaxTags+1)
	for i := range tooMany {
		tooMany[i] = numbered(i)
	}
	load := func(context.Context, []string) (map[string]any, error) { return nil, nil }
	type call func(b *keepcache.Bucket) error
	reads := map[string]call{
		"get": func(b *keepcache.Bucket) error { _, err := b.GetMany(nil); return err },
		"view": func(b *keepcache.Bucket) error {
			_, err := keepcache.Of[int](b).GetMany([]string{})
			return err
		},
		"load": func(b *keepcache.Bucket) error {
			_, err := b.GetOrLoadMany(context.Background(), nil, load, nil)
			return err
		},
	}
	writes := map[string]call{
		"set":    func(b *keepcache.Bucket) error { return b.SetMany(nil, 0) },
		"view":   func(b *keepcache.Bucket) error { return keepcache.Of[int](b).SetMany(map[string]int{}, 0) },
		"delete": func(b *keepcache.Bucket) error { _, err := b.DeleteMany(nil); return err },
	}
	each := func(calls map[string]call, b *keepcache.Bucket, want error) {
		t.Helper()
		for name, call := range calls {
			require.ErrorIs(t, call(b), want, name)
		}
	}
	each(reads, db.Bucket("b"), nil)
	each(writes, db.Bucket("b"), nil)
	each(reads, db.Bucket(""), keepcache.ErrInvalidName)
	each(writes, db.Bucket(""), keepcache.ErrInvalidName)
	require.ErrorIs(t, db.Bucket("b").SetMany(nil, -1), keepcache.ErrInvalidTTL)
	require.ErrorIs(t, db.Bucket("b").WithTags(tooMany...).SetMany(nil, 0), keepcache.ErrInvalidTag)
	require.NoError(t, db.Close())
	each(reads, db.Bucket("b"), keepcache.ErrClosed)
	each(writes, db.Bucket("b"), keepcache.ErrClosed)
	r := open(t, path, &keepcache.Options{ReadOnly: true})
	each(writes, r.Bucket("b"), keepcache.ErrReadOnly)
}
