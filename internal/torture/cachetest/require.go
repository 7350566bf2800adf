package cachetest

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// MustSet sets key in b.
func MustSet(t Tester, b *keepcache.Bucket, key string, value any, ttl time.Duration) {
	t.Helper()
	require.NoError(t, b.Set(key, value, ttl))
}

// RequireValue requires that key is in b and that it reads as want into an any.
func RequireValue(t Tester, b *keepcache.Bucket, key string, want any) {
	t.Helper()
	var got any = "untouched"
	found, err := b.Get(key, &got)
	require.NoError(t, err)
	require.True(t, found, "key %q is absent", key)
	require.Equal(t, want, got)
	exists, err := b.Exists(key)
	require.NoError(t, err)
	require.True(t, exists)
}

// RequireAbsent requires that every operation that reads takes key for absent.
func RequireAbsent(t Tester, b *keepcache.Bucket, key string) {
	t.Helper()
	got := "untouched"
	found, err := b.Get(key, &got)
	require.NoError(t, err)
	require.False(t, found, "key %q is there", key)
	require.Equal(t, "untouched", got)
	exists, err := b.Exists(key)
	require.NoError(t, err)
	require.False(t, exists)
	_, found, err = b.GetBytes(key)
	require.NoError(t, err)
	require.False(t, found)
	ttl, found, err := b.TTL(key)
	require.NoError(t, err)
	require.False(t, found)
	require.Zero(t, ttl)
	entry, found, err := b.Stat(key)
	require.NoError(t, err)
	require.False(t, found)
	require.Equal(t, keepcache.Entry{}, entry)
	for e, err := range b.Prefix(key) {
		require.NoError(t, err)
		require.NotEqual(t, key, e.Key)
	}
}

// RequireTTL requires that key is in b and has exactly want to live.
func RequireTTL(t Tester, b *keepcache.Bucket, key string, want time.Duration) {
	t.Helper()
	got, found, err := b.TTL(key)
	require.NoError(t, err)
	require.True(t, found, "key %q is absent", key)
	require.Equal(t, want, got)
}

// RequireError requires that err is one of ours, for the given operation on the given file, caused by want.
func RequireError(t Tester, err, want error, op, path string) {
	t.Helper()
	require.ErrorIs(t, err, want)
	var e *keepcache.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, op, e.Op)
	require.Equal(t, path, e.Path)
	if op == "load" {
		RequireLoadError(t, err, path)
		return
	}
	require.True(t, strings.HasPrefix(err.Error(), "keepcache: "+op), err.Error())
	require.Equal(t, 1, strings.Count(err.Error(), "keepcache: "), err.Error())
}

// RequireLoadError requires the form of an error of a load: it may be shown to users of the program.
func RequireLoadError(t Tester, err error, path string) {
	t.Helper()
	require.Regexp(t, `[^ ].* \(load( ".*")?( in)?( bucket ".*")?(, remembered)?\)$`, err.Error())
	require.NotContains(t, err.Error(), path)
	require.NotContains(t, err.Error(), "keepcache: ")
	require.NotContains(t, err.Error(), "\n")
}

// Keys returns the keys of b in the order of iteration.
func Keys(t Tester, b *keepcache.Bucket, prefix string) []string {
	t.Helper()
	found := []string{}
	for e, err := range b.Prefix(prefix) {
		require.NoError(t, err)
		found = append(found, e.Key)
	}
	return found
}
