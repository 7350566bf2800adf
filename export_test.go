package keepcache

import (
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// PanicInView has a read transaction panic.
func (db *DB) PanicInView() error {
	return db.engine.local.Store().View(func(*bolt.Tx) error { panic("a test") })
}

// PanicInUpdate has a write transaction panic.
func (db *DB) PanicInUpdate() error {
	return db.engine.local.Store().Update(func(*bolt.Tx) error { panic("a test") })
}

// FailSync has the file behave as after a sync that failed.
func (db *DB) FailSync(err error) { db.engine.local.Store().Handle().CommitFailed(0, err) }

// Without switches off what a harness has to show that it would miss: "preflight", "checksum", "guard", "deadlines", or
// nothing.
func Without(what string) {
	store.Without.Preflight, store.Without.Guard = what == "preflight", what == "guard"
	memory.IgnoreDeadlines = what == "deadlines"
	format.TrustChecksums = what == "checksum"
}

// ShallowBytes sets how much of a file that was closed in order is proved.
func ShallowBytes(n int) { store.ShallowBytes = n }

// Heal has the file looked at now, and mended if need be, as otherwise every two seconds.
func (db *DB) Heal() { db.engine.local.Heal() }

// Transactions returns the number of the last transaction that changed the file. A compaction begins anew.
func (db *DB) Transactions() (n int) {
	_ = db.engine.local.Store().View(func(tx *bolt.Tx) error {
		n = tx.ID()
		return nil
	})
	return n
}

// LargestTransaction returns how many bytes the pages have that one transaction has written, at the most, since the
// file was opened.
func (db *DB) LargestTransaction() int64 {
	return db.engine.local.Store().Handle().LargestTransaction()
}

// Names returns of how many buckets memory knows the name.
func (db *DB) Names() int { return db.engine.local.Names() }
