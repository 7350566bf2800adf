package keepcache

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/contend"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/ground"
	"github.com/keepcache/keepcache/internal/lockless"
	"github.com/keepcache/keepcache/internal/store"
	"github.com/keepcache/keepcache/internal/trust"
)

// Open opens the cache in the file at path, and creates it with mode 0600 if there is none. The directory must exist.
// An empty file becomes a cache and keeps its mode and owner. Nil options are the defaults.
//
// One process at a time can have a cache open: another gets ErrLocked after Options.LockTimeout. A file that is not a
// cache, or that a newer version wrote, gives ErrFormat and is left as it is. Options.OnCorruption decides about a
// damaged cache: a fresh file takes its place, or Open returns ErrCorrupt. For reading only it is always ErrCorrupt,
// and also on Windows, where an open file cannot be replaced.
//
// Open first makes path absolute and follows the links among its directories. From then on the cache is that file in
// that directory, together with its journal and the other files beside it. It does not matter if the working directory
// or links change, or if the directory or one above it is renamed: the cache goes on where it is, and whatever is put
// at the old path is left alone. If the directory is removed, the cache waits for one at the old path that has no other
// cache in it. On Windows the directory of an open file cannot be renamed.
//
// Only a regular file is opened, and no symbolic link. In a sticky directory that others may write to, such as /tmp, a
// file must belong to this user, to root or to the directory's owner: another user may have put it there to be found.
//
// Open proves that the structure of the file is whole. After a Close that costs next to nothing: the rest is proved in
// the background before the file is changed for the first time, if it has at most 2 GiB. After a crash, or if others
// changed or copied the file, it costs reading the file once. Then Open reads what a crash left in the journal into
// memory; commits move it into the file while the cache is in use. If the journal is damaged, or holds more than 96 MiB
// or twice Options.MemoryBytes, it goes into the file before Open returns.
func Open(path string, options *Options) (*DB, error) {
	filled, err := options.withDefaults()
	if err != nil {
		return nil, &Error{Op: "open", Path: path, Err: err}
	}
	if path == "" {
		return nil, &Error{Op: "open", Err: errors.New("empty path")}
	}
	// Where the file is, is settled here, once. From now on the working directory and links may change.
	in, real, err := disk.OpenDir(path)
	if err != nil {
		return nil, openError(path, filled.ReadOnly, err)
	}
	beside.Remember(real)
	db := newDB(real, filled)
	if filled.NoLock {
		db.engine.backend, err = lockless.Open(in, real)
	} else {
		db.engine.local, err = engine.Open(in, real, db.config())
		db.engine.backend = db.engine.local
	}
	if err != nil {
		db.ground.Close()
		in.Close()
		return nil, openError(path, filled.ReadOnly, err)
	}
	return db, nil
}

// newDB returns a DB without its engine.
func newDB(path string, options Options) *DB {
	g := ground.New()
	db := &DB{
		path: path, options: options, ground: g, turns: contend.Turns{Ground: g},
		loads: newLoads(options.MemoryBytes, g), events: newNotifier(path, &options, g),
	}
	db.main = db.Bucket(DefaultBucket)
	return db
}

// config says how the engine is to work.
func (db *DB) config() engine.Config {
	o := &db.options
	c := engine.Config{
		ReadOnly: o.ReadOnly, LockTimeout: o.LockTimeout, Quarantine: o.OnCorruption == CorruptionQuarantine,
		MaxBytes: o.MaxBytes, MemoryBytes: o.MemoryBytes, JournalBytes: o.JournalBytes, CommitBytes: o.CommitBytes,
		CompactBytes: o.CompactBytes,
		Limits:       make(map[string]engine.Limit), SyncAlways: o.Sync == SyncAlways,
		SyncInterval: o.SyncInterval, CommitInterval: o.CommitInterval, SweepInterval: o.SweepInterval,
		Log: o.Logger, Ground: db.ground, Listener: listener{db},
	}
	for name, b := range o.Buckets {
		if b.MaxBytes < engine.Unlimited || b.MaxEntries < engine.Unlimited {
			c.Limits[name] = engine.Limit{Bytes: b.MaxBytes, Entries: b.MaxEntries}
		}
	}
	return c
}

// openError dresses the error of an Open that failed, with what an operator can do about it.
func openError(path string, readOnly bool, err error) error {
	e := &Error{Op: "open", Path: path, Err: err}
	switch {
	case errors.Is(err, ErrLocked):
		e.Hint = "another process has it open"
		if pid := store.LockHolder(path); pid != 0 {
			e.Hint = fmt.Sprintf("process %d has it open", pid)
		}
		e.Hint += "; others can read beside it, without the lock"
	case errors.Is(err, store.ErrNotInitialized):
		e.Hint = "the first Open for writing makes a cache of it"
	case errors.Is(err, ErrCorrupt):
		e.Hint = "keepcache repair saves what can be proved of it"
	case errors.Is(err, store.ErrSymlink):
		e.Hint = "open the file that it leads to"
	case errors.Is(err, trust.ErrForeign):
		e.Hint = "keep the cache in a directory that only its users may write to"
	case errors.Is(err, fs.ErrPermission) && readOnly:
		e.Hint = "the file must be readable"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "the file and its directory must be writable; to read it, open it for reading only"
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = "the file or its directory does not exist"
	}
	return e
}
