package keepcache_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

type account struct {
	Name  string `json:"name"`
	Seats int    `json:"seats"`
}

// A view does what its bucket does, in one type.
func TestView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDB(t, nil).Bucket("b")
		v := keepcache.Of[account](b)
		require.Equal(t, b, v.Bucket())
		got, found, err := v.Get("ada")
		require.NoError(t, err)
		require.False(t, found)
		require.Zero(t, got)

		ada, bob := account{"ada", 1}, account{"bob", 2}
		require.NoError(t, v.Set("ada", ada, time.Hour))
		got, found, err = v.Get("ada")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, ada, got)
		requireTTL(t, b, "ada", time.Hour)

		added, err := v.Add("ada", bob, 0)
		require.NoError(t, err)
		require.False(t, added)
		old, found, err := v.Swap("ada", bob, time.Minute)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, ada, old)

		item, err := v.Update("ada", func(old account, found bool) (account, error) {
			require.True(t, found)
			old.Seats++
			return old, nil
		}, keepcache.KeepTTL)
		require.NoError(t, err)
		require.Equal(t, account{"bob", 3}, item.Value)
		requireTTL(t, b, "ada", time.Minute)
		cause := errors.New("cause")
		_, err = v.Update("new", func(old account, found bool) (account, error) {
			require.False(t, found)
			require.Zero(t, old)
			return old, cause
		}, 0)
		require.ErrorIs(t, err, cause)

		require.NoError(t, v.SetMany(map[string]account{"c": ada, "d": bob}, 0))
		many, err := v.GetMany([]string{"ada", "c", "absent"})
		require.NoError(t, err)
		require.Equal(t, map[string]account{"ada": {"bob", 3}, "c": ada}, many)
		taken, found, err := v.Take("ada")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, account{"bob", 3}, taken)

		mustSet(t, b, "x", 1, 0) // no account
		_, _, err = v.Get("x")
		require.Error(t, err)
		_, err = v.GetMany([]string{"x"})
		require.Error(t, err)
		_, err = v.Update("x", func(account, bool) (account, error) { return ada, nil }, 0)
		require.ErrorIs(t, err, keepcache.ErrMismatch)
		all := map[string]account{}
		for item, err := range v.All() {
			if item.Key == "x" {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err)
			all[item.Key] = item.Value
		}
		require.Equal(t, map[string]account{"c": ada, "d": bob}, all)
		for range v.All() {
			break
		}
	})
}

// Scalars, pointers and interfaces are types too.
func TestView_Types(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	n := keepcache.Of[int](b)
	require.NoError(t, n.Set("n", 7, 0))
	got, found, err := n.Get("n")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, 7, got)
	p := keepcache.Of[*account](b)
	require.NoError(t, p.Set("p", nil, 0))
	ptr, found, err := p.Get("p")
	require.NoError(t, err)
	require.True(t, found)
	require.Nil(t, ptr)
	a, found, err := keepcache.Of[any](b).Get("n")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, int64(7), a)
}
