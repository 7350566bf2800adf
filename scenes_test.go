package keepcache_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// A string that was set comes back.
func TestScene_String(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Set("greeting", "hello", 0))
	var got string
	found, err := db.Get("greeting", &got)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "hello", got)
}

// A token with a lifetime of 60 seconds is there before they have passed, and absent after.
func TestScene_Token(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		require.NoError(t, db.Set("session-token", "abc", 60*time.Second))
		time.Sleep(60*time.Second - 1)
		requireValue(t, db.Bucket(keepcache.DefaultBucket), "session-token", "abc")
		time.Sleep(time.Nanosecond)
		requireAbsent(t, db.Bucket(keepcache.DefaultBucket), "session-token")
	})
}

// Each part of an object comes back as what it was, into an any and into a struct.
func TestScene_Object(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Set("user:123", map[string]any{
		"username": "ada", "email": "ada@example.com", "roles": []string{"admin", "author"},
	}, 300*time.Second))

	requireValue(t, db.Bucket(keepcache.DefaultBucket), "user:123", map[string]any{
		"username": "ada", "email": "ada@example.com", "roles": []any{"admin", "author"},
	})
	var user struct {
		Username string   `json:"username"`
		Email    string   `json:"email"`
		Roles    []string `json:"roles"`
	}
	found, err := db.Get("user:123", &user)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "ada", user.Username)
	require.Equal(t, "ada@example.com", user.Email)
	require.Equal(t, []string{"admin", "author"}, user.Roles)
}

// A key that was set and deleted is absent.
func TestScene_Delete(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Set("temp-key", 1, 0))
	found, err := db.Delete("temp-key")
	require.NoError(t, err)
	require.True(t, found)
	requireAbsent(t, db.Bucket(keepcache.DefaultBucket), "temp-key")
}

// A flag exists, is deleted, and is gone; a second deletion finds nothing and is no error.
func TestScene_Flag(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Set("flag-key", true, 0))
	exists, err := db.Exists("flag-key")
	require.NoError(t, err)
	require.True(t, exists)

	found, err := db.Delete("flag-key")
	require.NoError(t, err)
	require.True(t, found)
	exists, err = db.Exists("flag-key")
	require.NoError(t, err)
	require.False(t, exists)

	found, err = db.Delete("flag-key")
	require.NoError(t, err)
	require.False(t, found)
}

// A miss is no error; the source fills it, and the second read hits.
func TestScene_Miss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDB(t, nil)
		loads := 0
		read := func() (value string) {
			found, err := db.Get("no-such-key", &value)
			require.NoError(t, err)
			if !found {
				loads++
				value = "from the source"
				require.NoError(t, db.Set("no-such-key", value, 120*time.Second))
			}
			return value
		}
		require.Equal(t, "from the source", read())
		require.Equal(t, "from the source", read())
		require.Equal(t, 1, loads)
		requireTTL(t, db.Bucket(keepcache.DefaultBucket), "no-such-key", 120*time.Second)
	})
}

// A stored null is found and exists.
func TestScene_Null(t *testing.T) {
	db := newDB(t, nil)
	require.NoError(t, db.Set("null", nil, 0))
	requireValue(t, db.Bucket(keepcache.DefaultBucket), "null", nil)
}

// A negative lifetime is an error, and leaves the old entry with its lifetime.
func TestScene_NegativeTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		db := open(t, path, nil)
		require.NoError(t, db.Set("key", "old", 10*time.Second))
		time.Sleep(3 * time.Second)

		err := db.Set("key", "new", -1500*time.Millisecond)
		requireError(t, err, keepcache.ErrInvalidTTL, "set", path)
		require.Contains(t, err.Error(), `"key"`)
		b := db.Bucket(keepcache.DefaultBucket)
		requireValue(t, b, "key", "old")
		requireTTL(t, b, "key", 7*time.Second)
	})
}

// A prefix is literal: deleting "a*" touches no "ab".
func TestScene_LiteralPrefix(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for _, key := range []string{"a*", "a*b", "ab", "a", "b"} {
		mustSet(t, b, key, key, 0)
	}
	deleted, err := b.DeletePrefix(context.Background(), "a*")
	require.NoError(t, err)
	require.Equal(t, 2, deleted)
	require.Equal(t, []string{"a", "ab", "b"}, keys(t, b, ""))
}
