package keepcache_test

import (
	"testing"

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
