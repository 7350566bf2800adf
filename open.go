package keepcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/ground"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
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
	db, err := openIn(in, real, filled)
	if err != nil {
		in.Close()
		return nil, openError(path, filled.ReadOnly, err)
	}
	return db, nil
}

// openIn opens the cache in the file at path, which is absolute, in the way that the options ask for.
func openIn(in *disk.Dir, path string, options Options) (*DB, error) {
	if options.NoLock {
		return openNoLock(in, path, options)
	}
	db, err := open(in, path, options, true)
	if errors.Is(err, ErrUnavailable) {
		// It has failed already, and so it was not what a file that was closed in order should be.
		db, err = open(in, path, options, false)
	}
	if errors.Is(err, ErrCorrupt) && options.OnCorruption == Quarantine && !options.ReadOnly && store.CanReplace {
		db, err = openFresh(in, path, options, err)
	}
	return db, err
}

// open opens the file at path and a cache upon it. See examine for trusting.
func open(in *disk.Dir, path string, options Options, trusting bool) (*DB, error) {
	s, err := store.Open(in, path, options.ReadOnly, options.LockTimeout, trusting)
	if err != nil {
		return nil, err
	}
	return openOn(path, options, s)
}

// openOn opens a cache upon an open store, which it closes if that fails.
func openOn(path string, options Options, s *store.Store) (*DB, error) {
	g := ground.New()
	db, err := newDB(path, options, s, g)
	if err != nil {
		g.Close()
		return nil, errors.Join(err, s.Close())
	}
	s.MarkOpen()
	return db, nil
}

// openFresh keeps the file at path aside, because of the given damage, and opens a fresh one in its place.
func openFresh(in *disk.Dir, path string, options Options, damage error) (*DB, error) {
	h, aside, from, err := store.QuarantineDamaged(in, path, options.LockTimeout)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	s, err := store.New(in, path, false, h)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	db, err := openOn(path, options, s)
	if err == nil {
		db.healer.quarantined(aside, damage, from)
	}
	return db, err
}

// openNoLock opens the cache at path for a reader beside its owner. The store is one that is closed, so that what
// does not know of such readers fails.
func openNoLock(in *disk.Dir, path string, options Options) (*DB, error) {
	l, err := openLive(in, path)
	if err != nil {
		return nil, err
	}
	s := store.Closed(in, path)
	g := ground.New() // which Close ends; from here on nothing fails
	db := &DB{
		path: path, options: options, ground: g, clock: l.clock, store: s, live: l, memory: memory.New(0),
		sweeper: &sweeper{store: s, log: options.Logger}, loads: newLoads(options.MemoryBytes, g), events: newTeller(path, &options, g),
		buckets: make(map[string]*namespace), byID: make(map[uint64]*namespace),
	}
	db.healer = newHealer(db) // which has nothing to do
	db.ctx, db.stop = newContext()
	db.main = db.Bucket(DefaultBucket)
	return db, nil
}

// newDB builds the parts upon an open store, brings in what the journal has, and starts the background work.
func newDB(path string, options Options, s *store.Store, g *ground.Ground) (*DB, error) {
	var evictor *evictor
	if !options.ReadOnly {
		evictor = newEvictor(&options)
	}
	db := &DB{
		path:    path,
		options: options,
		ground:  g,
		queues:  queues{ground: g},
		clock:   clock.New(),
		store:   s,
		memory:  memory.New(options.MemoryBytes),
		evictor: evictor,
		sweeper: &sweeper{store: s, log: options.Logger},
		loads:   newLoads(options.MemoryBytes, g),
		events:  newTeller(path, &options, g),
		buckets: make(map[string]*namespace), byID: make(map[uint64]*namespace),
	}
	if evictor != nil {
		db.memory.Reserve(evictor.recency.Bytes())
	}
	db.sweeper.events, db.sweeper.nameOf = db.events, db.nameOf
	db.healer = newHealer(db)
	if options.ReadOnly {
		if _, err := db.readTables(); err != nil {
			return nil, err
		}
		if err := db.overlay(beside.Journal(s.Path())); err != nil {
			return nil, err
		}
		db.ctx, db.stop = newContext()
		db.work.Go(func() { db.healer.loop(db.ctx) })
		return db, nil
	}
	var successor func(after uint64) (*journal.Journal, error)
	if store.CanReplace {
		successor = func(after uint64) (*journal.Journal, error) { return db.newJournal(after, true) }
	}
	// With more than twice what memory may hold, the first writers would wait for many commits. What was overwritten counts too.
	keep := 2 * min(options.MemoryBytes, replayBytes/2)
	left, err := replay(s, beside.Journal(s.Path()), db.healer, keep, successor)
	if err != nil {
		return nil, err
	}
	unnamed, err := db.readTables()
	if err == nil {
		db.takeBack(left)
		db.sweeper.retire(db.retired(unnamed, left.names)...)
		err = db.start(left)
	}
	if err != nil && left.journal != nil {
		left.journal.Close(false)
	}
	return db, err
}

// readTables reads what the file has of buckets and tags. It returns the ids that no name in the file points at.
func (db *DB) readTables() (unnamed []uint64, err error) {
	s := db.store
	ids, unnamed, highest, err := s.Names()
	if err != nil {
		return nil, err
	}
	db.lastID = highest
	for name, id := range ids {
		db.named(name, id)
		db.point(db.namespace(name), id)
	}
	rows, floor, err := s.TagRows()
	if err != nil {
		return nil, err
	}
	db.tags.load(rows, floor)
	db.main = db.Bucket(DefaultBucket)
	return unnamed, nil
}

// newJournal makes a journal for revisions above after. See journal.Options for staged.
func (db *DB) newJournal(after uint64, staged bool) (*journal.Journal, error) {
	o := &db.options
	return journal.New(beside.Journal(db.store.Path()), journal.Options{
		Dir: db.store.Dir(), Ground: db.ground, Identity: db.store.Identity(), MaxBytes: o.JournalBytes, After: after, Staged: staged,
		Window: o.Sync != SyncAlways, NoMap: o.Sync == SyncAlways, Like: db.store.Attributes,
	})
}

// start makes the parts that write, which go on with what is left of the last time, and sets them to work.
func (db *DB) start(left *backlog) error {
	o := &db.options
	w := &writer{
		clock:      db.clock,
		memory:     db.memory,
		tags:       &db.tags,
		suspects:   &db.suspects,
		failures:   &db.loads.failures,
		flights:    &db.loads.flights,
		path:       db.store.Path(),
		log:        o.Logger,
		always:     o.Sync == SyncAlways,
		pinnedMost: o.MemoryBytes / 4 * 3,
		commitAt:   min(o.CommitBytes, o.MemoryBytes/8*3),
		journalAt:  o.JournalBytes / 2,
		needFlush:  make(chan struct{}, 1),
		turn:       make(chan struct{}, 1),
		revision:   left.last,
		names:      left.names,
		journal:    left.journal,
		open:       func(after uint64) (*journal.Journal, error) { return db.newJournal(after, false) },
	}
	c := &committer{
		store: db.store, memory: db.memory, writer: w, sweeper: db.sweeper, evictor: db.evictor, named: db.named, filed: db.filed,
		wake: make(chan struct{}, 1), round: make(chan struct{}), mark: left.mark,
	}
	w.commits = c
	w.naming.Store(bytesOfNames(left.names))
	if e := db.evictor; e != nil {
		e.store, e.memory, e.sweeper, e.again, e.events = db.store, db.memory, db.sweeper, c.demand, db.events
		e.idOf = func(name string) uint64 {
			if ns := db.namespace(name); ns != nil {
				return ns.id.Load()
			}
			return 0
		}
	}
	if w.journal == nil {
		var err error
		if w.journal, err = w.open(left.last); err != nil {
			return err
		}
	} else if !w.always {
		w.unflushed = true // its name at least
		w.needFlush <- struct{}{}
	}
	db.writer, db.commits = w, c
	db.sweeper.tags, db.sweeper.vacant = db.sweepTags, db.sweepVacant
	db.sweeper.lives, db.sweeper.rearm = db.memory.Holds, db.rearm
	db.compactor = &compactor{
		store: db.store, log: o.Logger, events: db.events, least: o.CompactBytes, turn: make(chan struct{}, 1),
	}

	ctx, stop := newContext()
	db.ctx, db.stop = ctx, stop
	db.work.Go(func() { db.healer.loop(ctx) })
	db.work.Go(func() { c.loop(ctx, o.CommitInterval) })
	if !w.always && o.SyncInterval > 0 {
		db.work.Go(func() { w.loop(ctx, o.SyncInterval, o.Logger) })
	}
	if o.CompactBytes < unlimited && store.CanReplace {
		db.work.Go(func() { db.compactor.loop(ctx, func() uint64 { return c.snapshot().Entries }) })
	}
	if o.SweepInterval > 0 {
		db.work.Go(func() { db.sweeper.loop(ctx, o.SweepInterval) })
	}
	c.kick()
	return nil
}

// newContext returns a context to be cancelled. Its channel is made here, and not by whoever is the first to ask for it.
func newContext() (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	ctx.Done()
	return ctx, stop
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
	case errors.Is(err, store.ErrUnmade):
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
