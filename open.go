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

// Open opens the cache in the file at path and creates it, with mode 0600, if there is none; its directory
// must exist. nil options are the defaults. An empty file is made a cache, and keeps its mode and its owner.
//
// Where the file is, is settled once, before anything else: path is made absolute, and links among its directories are followed. From then
// on the cache is that file in that directory, with its journal and all that is made beside it, whatever becomes of the working directory,
// of links, and of the name of the directory: where that is renamed, or one further up, the cache goes on in it, and whatever is put at the
// old path is left alone. If the directory is removed, the cache waits for one at the old path that has no other cache in it.
// On Windows the directory of an open file cannot be renamed.
//
// One process at a time can have a cache open: another gets ErrLocked after Options.LockTimeout. A file
// that is no cache, or that a newer version wrote, gives ErrFormat; it is left as it is. What becomes of a cache that is
// damaged is up to Options.OnCorruption: it is kept aside and a fresh one takes its place, or Open returns ErrCorrupt,
// as it does for reading only, and on Windows, where an open file cannot be replaced. Anything but a regular file is refused,
// and a symbolic link too. In a sticky directory that others may write to, as /tmp is, a file that belongs neither to this
// user nor to root nor to the directory's owner is refused: another may have put it there to be found.
//
// Before anything else, Open proves that the structure of the file is whole. After a crash, or where the file was changed
// or copied by others since, that costs reading it once; after a Close it costs next to nothing,
// and the rest is proved in the background before the file is changed for the first time, if it has at most 2 GiB.
// What a crash left in the journal is then read into memory, and commits bring it into the file while the cache is in use
// already. Where the journal is damaged, or holds more than 96 MiB or twice Options.MemoryBytes, it goes into the file before
// Open returns.
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
		MaxBytes: o.MaxBytes, MemoryBytes: o.MemoryBytes, JournalBytes: o.JournalBytes, CommitBytes: o.CommitBytes, CompactBytes: o.CompactBytes,
		Limits: make(map[string]engine.Limit), SyncAlways: o.Sync == SyncAlways,
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
