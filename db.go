package keepcache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/journal"
)

// DB is an open cache. All its methods may be called from any goroutine. The methods Set, Get, Delete and
// Exists speak for the bucket named DefaultBucket.
type DB struct {
	path    string
	options Options
	store   *store
	live    *live // in the place of store and memory in a DB that is open without the lock; else nil
	memory  *memory
	writer  *writer    // nil in a DB that is open for reading only
	commits *committer // nil in a DB that is open for reading only
	sweeper *sweeper
	evictor *evictor // nil where nothing is limited
	counts  counters
	events  *teller
	queues  queues
	tags    tagTable
	loads   *loads

	tagsSwept time.Time // when sweepTags last ran; used by one sweep at a time

	compactor *compactor // nil in a DB that is open for reading only
	healer    *healer

	main *Bucket // DefaultBucket

	mu      sync.RWMutex          // protects what follows
	buckets map[string]*namespace // every bucket that the file has or that was written to since Open
	lastID  uint64                // the highest bucket id ever given out

	closing   closing
	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
	ctx       context.Context    // ends with Close
	stop      context.CancelFunc // ends the background work
	work      sync.WaitGroup     // the background work
}

// namespace is what all handles of one bucket share.
type namespace struct {
	name string
	sum  uint32 // the name's part of every checksum

	// turn is held shared by each write from before it resolves the id until it is committed, and
	// exclusively by what changes the id: the first write, Clear and DropBucket.
	turn sync.RWMutex
	id   atomic.Uint64 // 0 while the bucket does not exist

	flights flights
}

// Open opens the cache in the file at path and creates it, with mode 0600, if there is none; its directory
// must exist. nil options are the defaults.
//
// One process at a time can have a cache open: another gets ErrLocked after Options.LockTimeout. A file
// that is no cache, or that a newer version wrote, gives ErrFormat; it is left as it is. What becomes of a cache that is
// damaged is up to Options.OnCorruption: it is kept aside and a fresh one takes its place, or Open returns ErrCorrupt,
// as it does for reading only, and on Windows, where an open file cannot be replaced. Anything but a regular file is refused,
// and a symbolic link too; links among the directories above it are followed.
//
// Before anything else, Open proves that the structure of the file is whole. After a crash, or where the file was changed
// or copied by others since, that costs reading it once; after a Close it costs next to nothing.
func Open(path string, options *Options) (*DB, error) {
	filled, err := options.withDefaults()
	if err != nil {
		return nil, &Error{Op: "open", Path: path, Err: err}
	}
	if path == "" {
		return nil, &Error{Op: "open", Err: errors.New("empty path")}
	}
	if filled.NoLock {
		return openNoLock(path, filled)
	}
	db, err := open(path, filled, true)
	if errors.Is(err, ErrUnavailable) {
		// It has failed already, and so it was not what a file that was closed in order should be.
		db, err = open(path, filled, false)
	}
	if errors.Is(err, ErrCorrupt) && filled.OnCorruption == Quarantine && !filled.ReadOnly && canReplace {
		db, err = openFresh(path, filled, err)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	return db, nil
}

// open opens the file at path and a cache upon it. See examine for trusting.
func open(path string, options Options, trusting bool) (*DB, error) {
	s, err := openStore(path, options.ReadOnly, options.LockTimeout, trusting)
	if err != nil {
		return nil, err
	}
	return openOn(path, options, s)
}

// openOn opens a cache upon an open store, which it closes if that fails.
func openOn(path string, options Options, s *store) (*DB, error) {
	db, err := newDB(path, options, s)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.taken = true
	return db, nil
}

// openFresh keeps the file at path aside, because of the given damage, and opens a fresh one in its place.
func openFresh(path string, options Options, damage error) (*DB, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	h, aside, from, err := quarantineDamaged(real, options.LockTimeout)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	s, err := newStore(real, false, h)
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
func openNoLock(path string, options Options) (*DB, error) {
	l, err := openLive(path)
	if err != nil {
		return nil, openError(path, err)
	}
	s := &store{path: l.path, readOnly: true}
	db := &DB{
		path: path, options: options, store: s, live: l, memory: newMemory(0),
		sweeper: &sweeper{store: s, log: options.Logger}, loads: newLoads(), events: newTeller(&options.Events),
		buckets: make(map[string]*namespace),
	}
	db.healer = newHealer(db) // which has nothing to do
	db.ctx, db.stop = context.WithCancel(context.Background())
	db.main = db.Bucket(DefaultBucket)
	return db, nil
}

// newDB builds the parts upon an open store, brings in what the journal has, and starts the background work.
func newDB(path string, options Options, s *store) (*DB, error) {
	var evictor *evictor
	if !options.ReadOnly {
		evictor = newEvictor(&options)
	}
	db := &DB{
		path:    path,
		options: options,
		store:   s,
		memory:  newMemory(options.MemoryBytes - evictor.bytes()),
		evictor: evictor,
		sweeper: &sweeper{store: s, log: options.Logger},
		loads:   newLoads(),
		events:  newTeller(&options.Events),
		buckets: make(map[string]*namespace),
	}
	db.sweeper.events, db.sweeper.nameOf = db.events, db.nameOf
	db.healer = newHealer(db)
	var last uint64
	if !options.ReadOnly {
		var err error
		if last, err = replay(s, journalPath(db.store.path), db.healer); err != nil {
			return nil, err
		}
	}
	ids, retired, highest, err := s.names()
	if err != nil {
		return nil, err
	}
	db.lastID = highest
	for name, id := range ids {
		db.ensureNamespace(name).id.Store(id)
	}
	rows, floor, err := s.tagRows()
	if err != nil {
		return nil, err
	}
	db.tags.load(rows, floor)
	db.sweeper.retire(retired...)
	db.main = db.Bucket(DefaultBucket)
	if options.ReadOnly {
		if err := db.overlay(journalPath(db.store.path)); err != nil {
			return nil, err
		}
		db.ctx, db.stop = context.WithCancel(context.Background())
		db.work.Go(func() { db.healer.loop(db.ctx) })
		return db, nil
	}
	return db, db.start(last)
}

// start makes the parts that write, from the last revision on, and sets them to work.
func (db *DB) start(last uint64) error {
	o := &db.options
	w := &writer{
		memory:     db.memory,
		tags:       &db.tags,
		always:     o.Sync == SyncAlways,
		pinnedMost: o.MemoryBytes / 4 * 3,
		commitAt:   min(o.CommitBytes, o.MemoryBytes/8*3),
		journalAt:  o.JournalBytes / 2,
		needFlush:  make(chan struct{}, 1),
		revision:   last,
		open: func(after uint64) (*journal.Journal, error) {
			return journal.New(journalPath(db.store.path), journal.Options{
				Identity: db.store.identity, MaxBytes: o.JournalBytes, After: after,
			})
		},
	}
	c := &committer{
		store: db.store, memory: db.memory, writer: w, sweeper: db.sweeper, evictor: db.evictor,
		wake: make(chan struct{}, 1), round: make(chan struct{}), mark: last,
	}
	w.commits = c
	if e := db.evictor; e != nil {
		e.store, e.memory, e.sweeper, e.again, e.events = db.store, db.memory, db.sweeper, c.demand, db.events
		e.idOf = func(name string) uint64 {
			if ns := db.namespace(name); ns != nil {
				return ns.id.Load()
			}
			return 0
		}
	}
	var err error
	if w.journal, err = w.open(last); err != nil {
		return err
	}
	db.writer, db.commits = w, c
	db.sweeper.tags = db.sweepTags
	db.sweeper.lives, db.sweeper.rearm = db.memory.holds, db.rearm
	db.compactor = &compactor{
		store: db.store, log: o.Logger, events: db.events, least: o.CompactBytes, turn: make(chan struct{}, 1),
	}

	ctx, stop := context.WithCancel(context.Background())
	db.ctx, db.stop = ctx, stop
	db.work.Go(func() { db.healer.loop(ctx) })
	db.work.Go(func() { c.loop(ctx, o.CommitInterval) })
	if !w.always {
		db.work.Go(func() { w.loop(ctx, o.SyncInterval, o.Logger) })
	}
	if o.CompactBytes < unlimited && canReplace {
		db.work.Go(func() { db.compactor.loop(ctx, func() uint64 { return c.snapshot().Entries }) })
	}
	if o.SweepInterval > 0 {
		db.work.Go(func() { db.sweeper.loop(ctx, o.SweepInterval) })
	}
	return nil
}

func newNamespace(name string) *namespace { return &namespace{name: name, sum: nameSum(name)} }

func newIdentity() (id [16]byte) {
	rand.Read(id[:]) // never fails, see crypto/rand
	return id
}

// openError dresses the error of an Open that failed, with what an operator can do about it.
func openError(path string, err error) error {
	e := &Error{Op: "open", Path: path, Err: err}
	switch {
	case errors.Is(err, ErrLocked):
		e.Hint = "another process has it open"
		if pid := lockHolder(path); pid != 0 {
			e.Hint = fmt.Sprintf("process %d has it open", pid)
		}
		e.Hint += "; one process at a time can"
	case errors.Is(err, ErrCorrupt):
		e.Hint = "keepcache repair saves what can be proved of it"
	case errors.Is(err, errSymlink):
		e.Hint = "to follow it, open what filepath.EvalSymlinks returns for it"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "the file and its directory must be writable, or open it with Options.ReadOnly"
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = "the file or its directory does not exist"
	}
	return e
}

// Close ends the background work and releases the file. What was written is in the file, and plain bbolt
// tools can read it. Calls that are under way finish or get ErrClosed. Close may be called more than once;
// the later calls return what the first did.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.closing.run()
		var err error
		if db.sweeper.lives != nil {
			err = db.saveSlidKeys(db.memory.slidKeys())
		}
		db.closed.Store(true)
		db.loads.close()
		if db.writer != nil {
			db.writer.close()
			db.stop()
			db.healer.last()
			err = errors.Join(err, db.commits.finish())
			db.work.Wait()
			db.compactor.turn <- struct{}{} // a Compact or Backup that is on its way ends
			if j := db.writer.position().journal; j != nil {
				// What a failed commit held is in the journal for the next Open.
				err = errors.Join(err, j.Close(err == nil))
			}
		} else {
			db.stop()
			db.work.Wait()
		}
		if err = errors.Join(err, db.store.close()); err != nil {
			db.closeErr = db.fail("close", "", err)
		}
	})
	return db.closeErr
}

// Path returns the path that the cache was opened by.
func (db *DB) Path() string { return db.path }

// Set stores value under key in the default bucket. See Bucket.Set.
func (db *DB) Set(key string, value any, ttl time.Duration) error {
	return db.main.Set(key, value, ttl)
}

// Get reads the value of key in the default bucket into dst. See Bucket.Get.
func (db *DB) Get(key string, dst any) (found bool, err error) { return db.main.Get(key, dst) }

// Delete removes key from the default bucket. See Bucket.Delete.
func (db *DB) Delete(key string) (found bool, err error) { return db.main.Delete(key) }

// Exists reports whether key is in the default bucket. See Bucket.Exists.
func (db *DB) Exists(key string) (bool, error) { return db.main.Exists(key) }

// Bucket returns a handle of the bucket with the given name. It costs nothing: a bucket comes into being
// with its first entry. With a name that is empty or longer than MaxNameBytes every call of the handle
// gives ErrInvalidName.
func (db *DB) Bucket(name string) *Bucket {
	b := &Bucket{db: db, name: name, defaultTTL: db.options.DefaultTTL}
	if own, ok := db.options.Buckets[name]; ok {
		b.defaultTTL, b.sliding = own.DefaultTTL, own.Sliding
	}
	return b
}

// Buckets returns the names of all buckets in byte order, without those that were dropped and those that
// never had an entry.
func (db *DB) Buckets() ([]string, error) {
	if db.closed.Load() {
		return nil, db.fail("list buckets", "", ErrClosed)
	}
	if db.live != nil {
		names, err := db.live.bucketNames()
		if err != nil {
			return nil, db.fail("list buckets", "", err)
		}
		return names, nil
	}
	db.mu.RLock()
	defer db.mu.RUnlock()
	return slices.Sorted(func(yield func(string) bool) {
		for name, ns := range maps.All(db.buckets) {
			if ns.id.Load() != 0 && !yield(name) {
				return
			}
		}
	}), nil
}

// DropBucket removes a bucket with all its entries and reports whether there was one. It returns at once,
// whatever the number of entries: they are absent from then on, and the sweeper frees their room.
func (db *DB) DropBucket(name string) (found bool, err error) {
	found, err = db.replaceID(name, func() uint64 { return 0 })
	if err != nil {
		return false, db.fail("drop", name, err)
	}
	return found, nil
}

// replaceID lets the name of an existing bucket point at another id, and hands the entries of the old one
// to the sweeper.
func (db *DB) replaceID(name string, newID func() uint64) (found bool, err error) {
	if err := db.writable(); err != nil {
		return false, err
	}
	if !validName(name) {
		return false, ErrInvalidName
	}
	ns := db.namespace(name)
	if ns == nil {
		return false, nil
	}
	ns.turn.Lock()
	defer ns.turn.Unlock()
	defer ns.flights.voidPrefix("") // what they bring is older
	old := ns.id.Load()
	if old == 0 {
		return false, nil
	}
	id := newID()
	err = db.writer.write([]naming{{name: name, id: id, old: old}})
	if err == nil || errors.Is(err, errUnknown) {
		ns.id.Store(id)
	}
	return err == nil, err
}

// nextID gives out a bucket id. Ids are never used twice, not even if the write that wanted one fails.
func (db *DB) nextID() uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.lastID++
	return db.lastID
}

// revision returns the last revision given out.
func (db *DB) revision() uint64 {
	if db.writer == nil {
		return 0
	}
	return db.writer.last()
}

// namespace returns the shared state of a bucket, or nil if nothing was ever written to it.
func (db *DB) namespace(name string) *namespace {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.buckets[name]
}

// nameOf returns the name of the bucket that has the id now, or nothing.
func (db *DB) nameOf(id uint64) string {
	db.mu.RLock()
	defer db.mu.RUnlock()
	for name, ns := range db.buckets {
		if ns.id.Load() == id {
			return name
		}
	}
	return ""
}

// ensureNamespace returns the shared state of a bucket and makes it if it is absent.
func (db *DB) ensureNamespace(name string) *namespace {
	if ns := db.namespace(name); ns != nil {
		return ns
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	ns := db.buckets[name]
	if ns == nil {
		ns = newNamespace(name)
		db.buckets[name] = ns
	}
	return ns
}

// Sync returns when every write that returned before it is durable: from then on it survives a power cut.
// When ctx ends first, the flush goes on without the caller.
func (db *DB) Sync(ctx context.Context) error {
	if db.closed.Load() {
		return db.fail("sync", "", ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return db.fail("sync", "", err)
	}
	if db.writer == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- db.writer.flush() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return db.fail("sync", "", err)
	}
	return nil
}

// Sweep removes what expired and what was cleared now, from memory and in short transactions from the file,
// between which readers and writers go on. It returns the number of entries removed, also when ctx ends it
// early.
func (db *DB) Sweep(ctx context.Context) (removed int, err error) {
	if err := db.writable(); err != nil {
		return 0, db.fail("sweep", "", err)
	}
	before := db.sweeper.total()
	if ctx.Err() == nil {
		err = db.commits.commit()
	}
	if err == nil {
		err = db.sweeper.sweep(ctx, true)
	}
	if err != nil {
		err = db.fail("sweep", "", err)
	}
	return int(db.sweeper.total() - before), err
}

// writable returns why the DB takes no writes, or nil.
func (db *DB) writable() error {
	switch {
	case db.closed.Load():
		return ErrClosed
	case db.options.ReadOnly:
		return ErrReadOnly
	}
	return nil
}

// fail dresses err as the error of an operation on the whole cache or on one bucket.
func (db *DB) fail(op, bucket string, err error) error {
	return &Error{Op: op, Path: db.path, Bucket: bucket, Err: err}
}
