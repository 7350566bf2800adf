//go:build boltpatched

package boltpatch

import (
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
)

// Patched says whether this binary has the patched bbolt.
const Patched = true

func init() {
	bolt.Between = func(kind string, f *os.File, b []byte, off int64, do func() (int, []byte, error)) (int, []byte,
		error) {
		if disk.Between == nil {
			return do()
		}
		op := &disk.Op{Kind: disk.Kind(kind), File: f, Data: b, Off: off}
		var mem []byte
		err := disk.Between(op, func() (err error) {
			op.N, mem, err = do()
			if mem != nil {
				op.Data = mem
			}
			return err
		})
		if err != nil {
			mem = nil
		}
		return op.N, mem, err
	}
}
