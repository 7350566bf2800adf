package keepcache

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// setClock makes it so that reads have not seen yet that somebody has set the clock, ahead by so much.
func setClock(db *DB, by time.Duration) { db.engine.local.SkewClock(-by) }

// clocked runs a test with a cache.
func clocked(t *testing.T, test func(t *testing.T, db *DB)) {
	synctest.Test(t, func(t *testing.T) {
		db, err := Open(filepath.Join(t.TempDir(), "c.db"), nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		test(t, db)
	})
}

// What is written after somebody has set the clock back is there for the next read.
func TestClock_Writes(t *testing.T) {
	ctx := context.Background()
	for name, write := range map[string]func(b *Bucket) error{
		"Set":       func(b *Bucket) error { return b.Set("k", 1, time.Minute) },
		"Increment": func(b *Bucket) error { _, err := b.Increment("k", 1, time.Minute); return err },
		"GetOrLoad": func(b *Bucket) error {
			_, err := b.GetOrLoad(ctx, "k", new(int), func(context.Context, *Load) (any, error) { return 1, nil },
				&LoadOptions{TTL: time.Minute})
			return err
		},
		"Touch": func(b *Bucket) error {
			err := b.Set("k", 1, 3*time.Hour)
			setClock(b.db, -time.Hour)
			if err == nil {
				_, err = b.Touch("k", time.Minute)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			clocked(t, func(t *testing.T, db *DB) {
				setClock(db, -time.Hour)
				require.NoError(t, write(db.main))
				ttl, found, err := db.main.TTL("k")
				require.NoError(t, err)
				require.True(t, found)
				require.Equal(t, time.Minute, ttl)
			})
		})
	}
}

// No lifetime is less than nothing, also where somebody has set the clock ahead.
func TestClock_TTL(t *testing.T) {
	clocked(t, func(t *testing.T, db *DB) {
		require.NoError(t, db.Set("k", 1, time.Minute))
		time.Sleep(time.Minute)
		setClock(db, time.Minute)
		ttl, found, err := db.main.TTL("k")
		require.NoError(t, err)
		require.False(t, found)
		require.Zero(t, ttl)
	})
}

// What a write has seen expired, because somebody has set the clock ahead, no read takes for live any more.
func TestClock_SeenExpired(t *testing.T) {
	for name, see := range map[string]func(b *Bucket) (live bool, err error){
		"Touch":     func(b *Bucket) (bool, error) { return b.Touch("k", time.Hour) },
		"Delete":    func(b *Bucket) (bool, error) { return b.Delete("k") },
		"TTL":       func(b *Bucket) (bool, error) { _, live, err := b.TTL("k"); return live, err },
		"Increment": func(b *Bucket) (bool, error) { n, err := b.Increment("k", 1, time.Minute); return n == 2, err },
	} {
		t.Run(name, func(t *testing.T) {
			clocked(t, func(t *testing.T, db *DB) {
				require.NoError(t, db.Set("k", 1, time.Minute))
				require.NoError(t, db.Set("other", 1, time.Minute))
				time.Sleep(time.Minute) // and not so long that the sweeper has been there
				setClock(db, time.Hour)
				found, err := db.Exists("other")
				require.NoError(t, err)
				require.True(t, found, "reads go by the old time for a while")
				live, err := see(db.main)
				require.NoError(t, err)
				require.False(t, live)
				found, err = db.Exists("other")
				require.NoError(t, err)
				require.False(t, found)
			})
		})
	}
}
