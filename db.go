package keepcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/contend"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/foreign"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
)

// DB is an open cache. All its methods may be called from any goroutine. Set, Get, Delete and Exists work on the bucket
// named DefaultBucket.
type DB struct {
	path    string
	options Options
	ground  *ground.Ground // of what outlives a call
	engine  seam
	main    *Bucket // DefaultBucket

	counts   counters
	events   *notifier
	turns    contend.Turns
	suspects contend.Suspects
	loads    *loads

	closing   closing
	closeOnce sync.Once
	closeErr  error
}

// Close ends the background work and releases the file. Everything that was written is in the file, and plain bbolt
// tools can read it. Calls that are under way finish or get ErrClosed. Close may be called more than once; later calls
// return what the first one did.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.closing.run(db.options.Logger)
		db.events.hurry()
		err := db.engine.Shut()
		var there time.Time
		db.ground.Do(func() { there = time.Now() })
		db.loads.close(ground.InBubble(time.Now(), there))
		<-db.startOnGround(func() {
			if err = db.engine.Close(err); err != nil {
				db.closeErr = db.fail("close", "", err)
			}
		})
		db.events.close()
		db.ground.Close()
	})
	return db.closeErr
}

// onGround runs fn where the cache was opened, because others may meet its channels and timers. fn gets a context of
// its own that ends with ctx; ctx itself may be of a bubble. Events that fn causes count as the handler's if a handler
// calls onGround.
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

// startOnGround runs fn in a goroutine where the cache was opened, and returns a channel that is closed when fn has
// returned. If a handler of events calls it, fn runs on its behalf.
func (db *DB) startOnGround(fn func()) (done <-chan struct{}) {
	if foreign.InHandler() {
		return db.ground.Start(func() { foreign.ForHandler(fn) })
	}
	return db.ground.Start(fn)
}

// Path returns the path of the cache's file as Open found it: absolute, and without links among its directories. It
// does not change, even if the directory is renamed while the cache is open; HealthStats.Moved tells of that.
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

// Bucket returns a handle of the bucket with the given name. It costs nothing: the bucket is created with its first
// entry. If the name is empty or longer than MaxNameBytes, every call of the handle gives ErrInvalidName.
func (db *DB) Bucket(name string) *Bucket {
	b := &Bucket{db: db, at: engine.Ref{Name: name}, defaultTTL: db.options.DefaultTTL}
	if own, ok := db.options.Buckets[name]; ok {
		b.defaultTTL, b.sliding = own.DefaultTTL, own.Sliding
	}
	return b
}

// Buckets returns the names of all buckets in byte order, without those that were dropped or never had an entry. The
// sweeper drops a bucket that has become empty within a minute or so, and Sweep drops it at once.
func (db *DB) Buckets() ([]string, error) {
	if db.engine.Closed() {
		return nil, db.fail("list buckets", "", ErrClosed)
	}
	names, err := db.engine.BucketNames()
	if err != nil {
		return nil, db.fail("list buckets", "", err)
	}
	return names, nil
}

// DropBucket removes a bucket with all its entries and reports whether there was one. It returns at once, whatever the
// number of entries: they are absent from then on, and the sweeper frees their room. Handles of the bucket stay valid:
// the next write through one creates the bucket anew.
func (db *DB) DropBucket(name string) (found bool, err error) {
	found, err = db.replace(name, true)
	if err != nil {
		return false, db.fail("drop", name, err)
	}
	return found, nil
}

// replace empties a bucket, or drops it, and reports whether there was one.
func (db *DB) replace(name string, drop bool) (found bool, err error) {
	switch err := db.writable(); {
	case err != nil:
		return false, err
	case !format.ValidName(name):
		return false, ErrInvalidName
	}
	return db.engine.Replace(name, drop)
}

// Sync returns when every write that returned before it is durable, that is, survives a power cut. If ctx ends first,
// the flush goes on without the caller.
func (db *DB) Sync(ctx context.Context) error {
	if db.engine.Closed() {
		return db.fail("sync", "", ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return db.fail("sync", "", err)
	}
	done := make(chan error, 1)
	go func() { done <- db.engine.Flush() }()
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

// Sweep removes what expired and what was cleared now, from memory and, in short transactions, from the file, while
// readers and writers go on. It also drops buckets that have no entries any more. It returns the number of entries
// removed, also if ctx ends it early.
func (db *DB) Sweep(ctx context.Context) (removed int, err error) {
	if err := db.writable(); err != nil {
		return 0, db.fail("sweep", "", err)
	}
	before := db.engine.Swept()
	err = db.onGround(ctx, db.engine.Sweep)
	if err != nil {
		err = db.fail("sweep", "", err)
	}
	return int(db.engine.Swept() - before), err
}

// writable returns why the DB takes no writes, or nil.
func (db *DB) writable() error {
	switch {
	case db.engine.Closed():
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

// closing is what is to be called when a DB is closed.
type closing struct {
	mu    sync.Mutex // protects what follows
	begun bool
	next  int
	fns   map[int]func()
}

// OnClose has Close call fn, in a goroutine of its own and before anything is closed, and wait until it returns: for
// what serves the cache to others and has to end with it. On a cache that is closed already OnClose calls fn at once,
// in a goroutine too, and waits. The returned function forgets fn again; it reports false if it comes too late. A panic
// in fn ends that goroutine alone, and the Logger is told. fn must not call Close.
func (db *DB) OnClose(fn func()) (forget func() bool) {
	c := &db.closing
	c.mu.Lock()
	if c.begun {
		c.mu.Unlock()
		var wait sync.WaitGroup
		wait.Go(func() { lastCall(fn, db.options.Logger) })
		wait.Wait()
		return func() bool { return false }
	}
	defer c.mu.Unlock()
	if c.fns == nil {
		c.fns = make(map[int]func())
	}
	id := c.next
	c.next++
	c.fns[id] = fn
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, there := c.fns[id]
		delete(c.fns, id)
		return there
	}
}

func (c *closing) run(log *slog.Logger) {
	c.mu.Lock()
	fns := c.fns
	c.begun, c.fns = true, nil
	c.mu.Unlock()
	var wait sync.WaitGroup
	for _, fn := range fns {
		wait.Go(func() { lastCall(fn, log) })
	}
	wait.Wait()
}

// lastCall calls a function of OnClose, which ends no more than itself.
func lastCall(fn func(), log *slog.Logger) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("keepcache: a function of OnClose panicked", "panic", fmt.Sprint(v))
		}
	}()
	fn()
}
