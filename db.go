package keepcache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// DB is an open cache. All its methods may be called from any goroutine. The methods Set, Get, Delete and
// Exists speak for the bucket named DefaultBucket.
type DB struct {
	path     string
	options  Options
	ground   *ground.Ground // of what outlives a call; nil in a DB that is open without the lock
	clock    *clock.Clock
	store    *store.Store
	live     *live // in the place of store and memory in a DB that is open without the lock; else nil
	memory   *memory.Tier
	writer   *writer    // nil in a DB that is open for reading only
	commits  *committer // nil in a DB that is open for reading only
	sweeper  *sweeper
	evictor  *evictor // nil where nothing is limited
	counts   counters
	events   *teller
	queues   queues
	suspects suspects
	tags     tagTable
	loads    *loads

	tagsSwept   time.Time // when sweepTags last ran; used by one sweep at a time
	vacantSwept time.Time // when sweepVacant last ran; the same

	compactor *compactor // nil in a DB that is open for reading only
	healer    *healer

	inherited       journal.Report // of the journal that was found, in a DB that is open for reading only
	journalProblems []error        // with it

	main *Bucket // DefaultBucket

	mu          sync.RWMutex          // protects what follows
	buckets     map[string]*namespace // by name: every bucket that exists, or that the file still has, or of which something is loaded
	byID        map[uint64]*namespace // those of them that exist
	mostBuckets int                   // that there were at a time, since the two maps were made
	lastID      uint64                // the highest bucket id ever given out

	closing   closing
	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
	ctx       context.Context    // ends with Close
	stop      context.CancelFunc // ends the background work
	work      sync.WaitGroup     // the background work
}

// Close ends the background work and releases the file. What was written is in the file, and plain bbolt
// tools can read it. Calls that are under way finish or get ErrClosed. Close may be called more than once;
// the later calls return what the first did.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.closing.run(db.options.Logger)
		db.events.hurry()
		var err error
		if db.sweeper.lives != nil {
			err = db.saveSlidKeys(db.memory.Slid())
		}
		db.closed.Store(true)
		var there time.Time
		db.ground.Do(func() { there = time.Now() })
		db.loads.close(inBubble(time.Now(), there))
		<-db.startOnGround(func() { db.close(err) })
		db.events.close()
		db.ground.Close()
	})
	return db.closeErr
}

// close is what of Close others may be waiting for, after an error of what came before.
func (db *DB) close(err error) {
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
		} else if err == nil {
			err = db.store.RemoveJournal()
		}
	} else {
		db.stop()
		db.work.Wait()
	}
	err = errors.Join(err, db.store.Close())
	if db.live != nil {
		err = errors.Join(err, db.live.close())
	}
	if err = errors.Join(err, db.store.Dir().Close()); err != nil {
		db.closeErr = db.fail("close", "", err)
	}
}

// onGround runs fn, whose channels and timers others may meet, where the cache was opened. Its context ends with ctx, of which
// nothing is called there: it may be of a bubble, and it is not ours. What is done in a handler of events is told of as such.
func (db *DB) onGround(ctx context.Context, fn func(context.Context) error) (err error) {
	own, cancel := context.WithCancel(context.Background())
	defer cancel()
	if ctx.Err() != nil {
		cancel()
	}
	done := db.startOnGround(func() { err = fn(own) })
	select {
	case <-done:
	case <-ctx.Done():
		cancel()
		<-done
	}
	if ended := ctx.Err(); ended != nil && errors.Is(err, context.Canceled) {
		return ended // and not that of the other context
	}
	return err
}

// startOnGround runs fn in a goroutine where the cache was opened, and returns a channel that is closed when it has returned. A handler
// of events that calls it has fn run for it.
func (db *DB) startOnGround(fn func()) (done <-chan struct{}) {
	if inHandler() {
		return db.ground.Start(func() { forHandler(fn) })
	}
	return db.ground.Start(fn)
}

// Path returns the path of the cache's file as Open found it: absolute, and with no links among its directories. It stays as it
// is, also where the file's directory is renamed while the cache is open; HealthStats.Moved tells of that.
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
// never had an entry. The sweeper drops a bucket that has no entries any more within a minute or so, and Sweep at once.
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

// bucketIDs returns the ids of all buckets by their names.
func (db *DB) bucketIDs() map[string]uint64 {
	db.mu.RLock()
	defer db.mu.RUnlock()
	ids := make(map[string]uint64, len(db.buckets))
	for name, ns := range db.buckets {
		if id := ns.id.Load(); id != 0 {
			ids[name] = id
		}
	}
	return ids
}

// DropBucket removes a bucket with all its entries and reports whether there was one. It returns at once,
// whatever the number of entries: they are absent from then on, and the sweeper frees their room. Handles of the bucket
// stay good: the next write through one makes the bucket anew.
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
	if !format.ValidName(name) {
		return false, ErrInvalidName
	}
	defer db.loads.failures.forgetPrefix(name, "")
	// Void loads before looking, see voidFlights: one that is about to bring the bucket into being either finds itself void, or is waited
	// for by the turn.
	db.loads.flights.voidPrefix(name, "")
	ns := db.namespace(name)
	if ns == nil {
		return false, nil
	}
	defer db.lapse(ns)
	ns.turn.Lock()
	defer ns.turn.Unlock()
	defer db.loads.flights.voidPrefix(name, "") // what they bring is older
	old := ns.id.Load()
	if old == 0 {
		return false, nil
	}
	id := newID()
	err = db.writer.write([]store.NameOp{{Name: ns.name, ID: id, Old: old}})
	if err == nil || errors.Is(err, ErrUnknownOutcome) {
		db.point(ns, id)
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
// between which readers and writers go on, and drops buckets that have no entries any more. It returns the number of entries removed, also when ctx ends it
// early.
func (db *DB) Sweep(ctx context.Context) (removed int, err error) {
	if err := db.writable(); err != nil {
		return 0, db.fail("sweep", "", err)
	}
	before := db.sweeper.total()
	err = db.onGround(ctx, func(ctx context.Context) error {
		if ctx.Err() == nil {
			if err := db.commits.commit(); err != nil {
				return err
			}
		}
		return db.sweeper.sweep(ctx, true)
	})
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
