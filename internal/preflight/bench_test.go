package preflight_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/preflight"
)

// BenchmarkCheck checks a file of 100 MiB, of values of 250 bytes that were put in random order, and reads it for
// comparison.
func BenchmarkCheck(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType})
	require.NoError(b, err)
	const entries = 280_000
	for from := 0; from < entries; from += 20_000 {
		require.NoError(b, db.Update(func(tx *bolt.Tx) error {
			plain, err := tx.CreateBucketIfNotExists([]byte("plain"))
			if err != nil {
				return err
			}
			for i := range uint64(20_000) {
				key := binary.BigEndian.AppendUint64([]byte("key:"), (uint64(from)+i)*0x9E3779B97F4A7C15)
				if err := plain.Put(key, make([]byte, 250)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	require.NoError(b, db.Close())
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(b, err)
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(info.Size())
		for b.Loop() {
			file, err := preflight.Open(f, info.Size())
			require.NoError(b, err)
			require.NoError(b, file.Check(layout, math.MaxInt))
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(info.Size())
		buffer := make([]byte, 1<<20)
		for b.Loop() {
			for at := int64(0); at < info.Size(); at += int64(len(buffer)) {
				_, _ = f.ReadAt(buffer, at)
			}
		}
	})
}
