package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/salvage"
)

// Handle is one opening of a file by bbolt, and the only access to it. bbolt panics on damaged data, and faults when it
// reads its map of a file that was damaged or truncated meanwhile. The guard turns both into errors. bbolt's state is
// unknown after that, so the guard poisons the handle: nothing calls bbolt again, not even Close, which could block
// forever. Another handle replaces a poisoned one, see heal.go of package engine.
//
// SetPanicOnFault and recover work only in the goroutine that panics. So no transaction starts a goroutine, and none
// runs code of the user.
type Handle struct {
	db         *bolt.DB
	page       cost.Paging
	file       *os.File      // the descriptor that bbolt uses; closing it releases a poisoned handle's lock
	info       os.FileInfo   // of the file when it was opened
	found      examined      // result of examine; changed only under writeToken afterwards
	size       atomic.Int64  // the file's least size in bytes
	mapped     atomic.Int64  // the least number of bytes that bbolt has mapped
	maxWritten atomic.Int64  // bytes of the pages that the largest transaction has written; for tests
	onFailure  func()        // called when the handle is poisoned or frozen; must not block
	detached   *atomic.Int64 // see Store
	from       *Handle       // what a successor is copied from; a panic may come from either handle and poisons both

	users      sync.RWMutex  // held shared by every transaction, exclusively by Close
	closed     bool          // protected by users
	writeToken chan struct{} // holds a token while a transaction changes the file; waiting for it can time out
	dirty      bool          // the file has changed since its free pages were last stored; protected by writeToken

	// gate is held while a transaction begins. bbolt then reads the map while it holds its lock of the meta pages. If that
	// faults, bbolt's lock stays taken forever. Waiting at the gate, other transactions do not get stuck in bbolt.
	gate sync.Mutex

	failure    atomic.Pointer[Failure] // not nil: poisoned
	poisoned   chan struct{}           // closed when poisoned
	beginStuck atomic.Bool             // a transaction faulted in Begin and holds bbolt's lock of the meta pages forever
	frozen     atomic.Pointer[Failure] // not nil: the file may be read but not changed
}

// Failure is why a handle is poisoned or frozen.
type Failure struct {
	Err   error  // wraps errs.ErrUnavailable and the cause
	Stack []byte // of the panic, if it was one
}

const (
	// hungTimeout is how long a change of the file may take before it counts as hung. A disk that does not answer for so
	// long has as good as failed.
	hungTimeout = 2 * time.Minute

	// DetachAfter is how long a caller waits for its own transaction after the handle was poisoned by another.
	DetachAfter = 3 * time.Second

	// closeTimeout is how long Close waits for running transactions.
	closeTimeout = 30 * time.Second
)

var (
	errSuperseded = errors.New("the file was reopened")
	ErrHung       = fmt.Errorf("a change of the file has not ended in %v", hungTimeout)
	ErrTruncated  = errors.New("the file was truncated while it was open")
	ErrRemoved    = errors.New("the file was removed while it was open")
	errKeyOrder   = errors.New("keys are out of order")
	errBusy       = fmt.Errorf("transactions have not ended in %v", closeTimeout)
)

func newHandle(db *bolt.DB, file *os.File, info os.FileInfo) *Handle {
	h := &Handle{
		db:         db,
		page:       cost.Paging(db.Info().PageSize),
		file:       file,
		info:       info,
		onFailure:  func() {},
		detached:   new(atomic.Int64),
		writeToken: make(chan struct{}, 1),
		poisoned:   make(chan struct{}),
	}
	h.size.Store(info.Size())
	return h
}

// Poison ends the use of the handle. The first cause is kept. It takes no lock and may be called from anywhere.
func (h *Handle) Poison(f Failure) {
	f.Err = fmt.Errorf("%w: %w", errs.ErrUnavailable, f.Err)
	if h.failure.CompareAndSwap(nil, &f) {
		close(h.poisoned)
		h.onFailure()
	}
}

// Freeze stops all further changes of the file, because what a transaction writes could be lost.
func (h *Handle) Freeze(cause error) {
	f := &Failure{Err: fmt.Errorf("%w: %w", errs.ErrUnavailable, cause)}
	if h.frozen.CompareAndSwap(nil, f) {
		h.onFailure()
	}
}

// Err returns why the handle must not be used, or nil.
func (h *Handle) Err() error {
	if f := h.failure.Load(); f != nil {
		return f.Err
	}
	return nil
}

// guard is deferred around every use of bbolt. It turns a panic into an error and poisons the handle.
func (h *Handle) guard(err *error) {
	if r := recover(); r != nil {
		if Without.Guard {
			panic(r)
		}
		f := panicked(r)
		h.Poison(f)
		if h.from != nil {
			h.from.Poison(f)
		}
		*err = h.Err()
	}
}

// panicked turns the value of recover into a failure.
func panicked(r any) Failure {
	f := Failure{Stack: debug.Stack()}
	if err, ok := r.(error); ok {
		f.Err = fmt.Errorf("bbolt panicked: %w", err)
	} else {
		f.Err = fmt.Errorf("bbolt panicked: %v", r)
	}
	return f
}

// begin begins a transaction. The caller has deferred a guard, too.
func (h *Handle) begin(writable bool) (tx *bolt.Tx, err error) {
	h.gate.Lock()
	defer h.gate.Unlock()
	if err := h.Err(); err != nil {
		return nil, err
	}
	h.beginStuck.Store(true)
	defer h.guard(&err) // runs before the gate opens, so the next transaction finds the handle poisoned
	tx, err = h.db.Begin(writable)
	h.beginStuck.Store(false)
	if errors.Is(err, berrors.ErrInvalidMapping) {
		h.poisonUnmapped(err)
		err = h.Err()
	}
	return tx, err
}

// end ends a read transaction. bbolt reads no mapped memory for that, but takes its lock of the meta pages. A
// transaction that faulted while it began keeps that lock forever. Holding the gate, end cannot run into that.
func (h *Handle) end(tx *bolt.Tx) {
	if h.gate.TryLock() {
		defer h.gate.Unlock()
		if h.Err() == nil {
			_ = tx.Rollback()
			return
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tx.Rollback()
	}()
	select {
	case <-done:
	case <-h.poisoned:
	}
}

// usable returns why a transaction may not begin, or nil. The caller holds users.
func (h *Handle) usable() error {
	if h.closed {
		return errSuperseded
	}
	return h.Err()
}

// view runs fn in a read transaction.
func (h *Handle) view(fn func(*bolt.Tx) error) error { return h.viewFrom(func() {}, fn) }

// viewFrom is view, but calls begun as soon as the transaction has begun.
func (h *Handle) viewFrom(begun func(), fn func(*bolt.Tx) error) (err error) {
	h.users.RLock()
	defer h.users.RUnlock()
	if err := h.usable(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer h.guard(&err)
	tx, err := h.begin(false)
	if err != nil {
		return err
	}
	defer h.end(tx)
	begun()
	return fn(tx)
}

// update runs fn in a write transaction. The caller has the write token.
//
// It does not use bbolt's Update. After a panic that rolls back, which walks the whole file in a goroutine that no
// guard reaches.
func (h *Handle) update(fn func(*bolt.Tx) error) (err error) {
	h.users.RLock()
	defer h.users.RUnlock()
	if err := h.usable(); err != nil {
		return err
	}
	if f := h.frozen.Load(); f != nil {
		return f.Err
	}
	// The walk in which a failed Commit finds the free pages again has no guard either, so check the file first.
	if err := h.checkIntact(); err != nil {
		return err
	}
	if err := h.checkLeaves(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer h.guard(&err)
	tx, err := h.begin(true)
	if err != nil {
		return err
	}
	h.dirty = true
	h.db.AllocSize = int(min(max(tx.Size()/growthShare, minGrowth), maxGrowth))
	h.noteMapSize(tx.Size()) // the last transaction may have outgrown the map
	if err = fn(tx); err == nil {
		err = h.checkIntact()
	}
	if showsDamage(err) {
		f := Failure{Err: err}
		h.Poison(f)
		if h.from != nil {
			h.from.Poison(f)
		}
		err = h.Err()
	}
	if err != nil {
		if h.Err() == nil {
			_ = tx.Rollback()
		}
		return err
	}
	id := tx.ID()
	if err = tx.Commit(); err != nil {
		if isMapFailure(err) {
			h.poisonUnmapped(err)
			return h.Err()
		}
		h.CommitFailed(uint64(id), err)
	}
	stats := tx.Stats()
	h.maxWritten.Store(max(h.maxWritten.Load(), stats.GetPageAlloc()))
	return errors.Join(err, h.noteSize())
}

// showsDamage reports whether an error of a change means that the file is damaged: a bucket where none can be, no
// bucket where one must be, or a key that was never put.
func showsDamage(err error) bool {
	return errors.Is(err, errKeyOrder) || errors.Is(err, berrors.ErrIncompatibleValue) ||
		errors.Is(err, berrors.ErrKeyTooLarge) || errors.Is(err, berrors.ErrKeyRequired) ||
		errors.Is(err, berrors.ErrBucketNameRequired)
}

// sync flushes what was written while syncs were off.
func (h *Handle) sync() (err error) {
	defer h.guard(&err)
	return h.db.Sync()
}

// checkIntact returns an error if the file is no longer as bbolt left it. It poisons the handle if the file was
// truncated, and freezes it if the file has no name any more.
func (h *Handle) checkIntact() error {
	was := h.size.Load() // before the size is read: the file may grow meanwhile
	size, removed, err := sizeOfFile(h.file)
	switch {
	case err != nil:
		return err
	case size < was:
		h.Poison(Failure{Err: ErrTruncated})
		return h.Err()
	case removed:
		h.Freeze(ErrRemoved)
		return h.frozen.Load().Err
	}
	return nil
}

// noteSize notes the size of the file after a transaction. No transaction shrinks the file, so a smaller one was
// truncated and may lack what was written.
func (h *Handle) noteSize() error {
	size, _, err := sizeOfFile(h.file)
	switch {
	case err != nil:
		return nil // the size stays unknown
	case size < h.size.Load():
		h.Poison(Failure{Err: ErrTruncated})
		return h.Err()
	}
	h.size.Store(size)
	return nil
}

// CommitFailed is called when a commit has failed. A commit that failed before it synced anything, as on a full disk,
// has changed nothing. But after a failed sync the system may take pages for written that never were, and later syncs
// succeed without them. A new meta page may be in place, and nobody knows whether it is on disk, while the next
// transaction would write to pages that only this one freed. So the file must not be changed any more. It can still be
// read, and a copy replaces it.
func (h *Handle) CommitFailed(txid uint64, err error) {
	if beforeSync(err) && h.newestTxid() < txid {
		return
	}
	h.Freeze(fmt.Errorf("the file can no longer be trusted after: %w", err))
}

// newestTxid returns the id of the last transaction with an intact meta page, or math.MaxUint64 if it is unknown.
func (h *Handle) newestTxid() uint64 {
	size, _, err := sizeOfFile(h.file)
	if err != nil {
		return math.MaxUint64
	}
	f, err := salvage.Open(h.file, size)
	if err != nil || f.Txid() == 0 {
		return math.MaxUint64
	}
	return f.Txid()
}

// beforeSync reports whether an error of Commit comes from a write or from growing the file. Errors of a sync have
// another text.
func beforeSync(err error) bool {
	var write *os.PathError
	return errors.As(err, &write) && write.Op == "write" || strings.HasPrefix(err.Error(), "file resize error")
}

// unlock returns the write token.
func (h *Handle) unlock() { <-h.writeToken }

// runDetachable runs fn in a goroutine and waits for it. If fn hangs, or the handle is poisoned and fn does not end
// soon, the caller gives up: fn is detached and goes on alone. The caller has the write token, and it is returned when
// fn ends.
func (h *Handle) runDetachable(fn func() error) error {
	done := make(chan error, 1)
	var over atomic.Bool // fn has returned, or the caller has given up: whichever comes first
	go func() {
		defer h.unlock()
		err := fn()
		if !over.CompareAndSwap(false, true) {
			h.detached.Add(-1)
		}
		done <- err
	}()
	timer := time.NewTimer(hungTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-h.poisoned:
	case <-timer.C:
		h.Poison(Failure{Err: ErrHung})
	}
	timer.Reset(DetachAfter)
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	h.detached.Add(1)
	if !over.CompareAndSwap(false, true) {
		h.detached.Add(-1)
		return <-done
	}
	return h.Err()
}

// Close closes the handle when its transactions have ended. If they do not end, or if the handle is poisoned, it closes
// the file without bbolt.
func (h *Handle) Close() (err error) {
	for end := time.Now().Add(closeTimeout); ; time.Sleep(time.Millisecond) {
		if err := h.Err(); err != nil {
			h.closeFile()
			return err
		}
		if h.users.TryLock() {
			break
		}
		if !time.Now().Before(end) {
			h.Poison(Failure{Err: errBusy})
		}
	}
	defer h.users.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if h.Err() != nil {
			h.closeFile()
		}
	}()
	defer h.guard(&err)
	return h.db.Close()
}

// closeFile unlocks and closes the file of a poisoned handle. Without the descriptor bbolt can write nothing more, even
// if a transaction is still running. The map stays, because somebody may be reading it.
func (h *Handle) closeFile() {
	_ = unlockFile(h.file)
	_ = h.file.Close()
}

// Abandon closes the file of a poisoned handle when the running change has ended, or will never end.
func (h *Handle) Abandon(ctx context.Context) error {
	most := drainTimeout
	if h.beginStuck.Load() {
		h.closeFile()
		most = drainTimeoutStuck
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case h.writeToken <- struct{}{}: // and never return the token
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.closeFile()
	return nil
}
