package engine

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/store"
)

// overcounted opens a cache whose file claims a hundred entries of 1 KiB in an empty bucket.
func overcounted(t *testing.T, conf Config) *cache {
	conf.SweepInterval, conf.CommitInterval, conf.CompactBytes = -1, time.Hour, Unlimited
	db := open(t, filepath.Join(t.TempDir(), "test.cache"), conf)
	require.NoError(t, db.store.Update(func(tx *bolt.Tx) error {
		used, err := store.OpenUsage(tx)
		require.NoError(t, err)
		return used.Put(7, cost.Usage{Entries: 100, Bytes: 100 << 10, Leaf: 100 << 10, Row: 100 << 10})
	}))
	return db
}

// Counts that are too high do not make the evictor search forever.
func TestEvict_Overcounted(t *testing.T) {
	db := overcounted(t, Config{MaxBytes: 64 << 10})
	require.NoError(t, db.evictor.enforceAll(evictionRound{}))
}

// Counts that cannot be true are repaired when a file is reopened while the cache is in use, as by Open.
func TestHeal_Overcounted(t *testing.T) {
	db := overcounted(t, Config{})
	require.NoError(t, db.store.Update(func(tx *bolt.Tx) error {
		used, err := store.OpenUsage(tx)
		require.NoError(t, err)
		return used.Put(7, cost.Usage{Entries: 1, Bytes: 1 << 40})
	}))
	db.store.Handle().Poison(store.Failure{Err: errors.New("test")})
	require.Eventually(t, func() bool { return db.Stats().Health.Healed == 1 }, 20*time.Second, time.Millisecond)
	_, used, err := db.store.Size()
	require.NoError(t, err)
	require.NotContains(t, used, uint64(7))
}
