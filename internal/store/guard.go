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

// Handle is one opening of a file by bbolt, and the only way to it. A file that was damaged, or cut short under
// bbolt's map, makes bbolt panic, or fault where it reads the map. The guard turns both into errors, and
// because nobody can say in what state bbolt is then, it poisons the handle: no call of bbolt follows, not even
// Close, which can wait for ever. Another handle takes the place of a poisoned one, see heal.go of package engine.
//
// SetPanicOnFault and recover are matters of one goroutine. So no transaction starts another one, and none
// runs code of the user.
type Handle struct {
	db     *bolt.DB
	page   cost.Paging
	file   *os.File      // the descriptor that bbolt works on: a poisoned handle's lock is let go of by it
	info   os.FileInfo   // of the file, from when it was opened
	found  examined      // what was found in it then; what is proved later is protected by writing
	size   atomic.Int64  // that the file must have, in bytes
	mapped atomic.Int64  // bytes for which bbolt has mapped it, at least
	most   atomic.Int64  // bytes of the pages that the largest transaction has written; for tests
	sick   func()        // told that the handle is poisoned or barred; must not wait
	strays *atomic.Int64 // see Store
	from   *Handle       // what a successor is copied from: a panic may come from either, and counts for both

	users   sync.RWMutex  // held shared by every transaction, exclusively to close
	closed  bool          // protected by users
	writing chan struct{} // holds a token while a transaction changes the file: who waits can leave
	dirty   bool          // the file has changed since its free pages were last stored; protected by writing

	// gate is held while a transaction begins. bbolt reads the map then, with its lock of the meta pages held: if
	// that faults the lock stays taken, and only who waits at the gate, and not in bbolt, is not caught.
	gate sync.Mutex

	why    atomic.Pointer[Failure] // not nil: poisoned
	dead   chan struct{}           // closed when poisoned
	stuck  atomic.Bool             // by a transaction that faulted in its beginning: bbolt's lock of the meta pages is taken for good
	barred atomic.Pointer[Failure] // not nil: the file is read, but not to be changed any more
}

// Failure is why a handle is of no more use, or of less.
type Failure struct {
	Err   error  // matches errs.ErrUnavailable and the cause
	Stack []byte // where it was met, if it was a panic
}

const (
	// hungAfter is how long a change of the file may take before it counts as hung: a disk that does not answer for
	// so long has as good as failed.
	hungAfter = 2 * time.Minute

	// LeaveAfter is how long a caller whose handle was poisoned by another one waits for his own transaction.
	LeaveAfter = 3 * time.Second

	// closeMost is how long closing waits for transactions that are under way.
	closeMost = 30 * time.Second
)

var (
	errSuperseded = errors.New("the file was opened anew")
	ErrHung       = fmt.Errorf("a change of the file has not ended in %v", hungAfter)
	ErrCutShort   = errors.New("the file was cut short while it was open")
	ErrRemoved    = errors.New("the file was removed while it was open")
	errDisorder   = errors.New("keys are out of order")
	errBusy       = fmt.Errorf("transactions have not ended in %v", closeMost)
)

func newHandle(db *bolt.DB, file *os.File, info os.FileInfo) *Handle {
	h := &Handle{db: db, page: cost.Paging(db.Info().PageSize), file: file, info: info, sick: func() {}, strays: new(atomic.Int64), writing: make(chan struct{}, 1), dead: make(chan struct{})}
	h.size.Store(info.Size())
	return h
}

// Poison ends the use of the handle. The first cause stays. It takes no lock and may be called from anywhere.
func (h *Handle) Poison(f Failure) {
	f.Err = fmt.Errorf("%w: %w", errs.ErrUnavailable, f.Err)
	if h.why.CompareAndSwap(nil, &f) {
		close(h.dead)
		h.sick()
	}
}

// Bar lets nobody change the file any more: what a transaction would write could be lost.
func (h *Handle) Bar(cause error) {
	f := &Failure{Err: fmt.Errorf("%w: %w", errs.ErrUnavailable, cause)}
	if h.barred.CompareAndSwap(nil, f) {
		h.sick()
	}
}

// Err returns why the handle must not be called, or nil.
func (h *Handle) Err() error {
	if f := h.why.Load(); f != nil {
		return f.Err
	}
	return nil
}

// caught is deferred around every use of bbolt.
func (h *Handle) caught(err *error) {
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

// panicked turns what recover returned into a failure.
func panicked(r any) Failure {
	f := Failure{Stack: debug.Stack()}
	if err, ok := r.(error); ok {
		f.Err = fmt.Errorf("bbolt has panicked: %w", err)
	} else {
		f.Err = fmt.Errorf("bbolt has panicked: %v", r)
	}
	return f
}

// begin begins a transaction. The caller has a guard of his own.
func (h *Handle) begin(writable bool) (tx *bolt.Tx, err error) {
	h.gate.Lock()
	defer h.gate.Unlock()
	if err := h.Err(); err != nil {
		return nil, err
	}
	h.stuck.Store(true)
	defer h.caught(&err) // before the gate opens, so that the next one finds the handle poisoned
	tx, err = h.db.Begin(writable)
	h.stuck.Store(false)
	if errors.Is(err, berrors.ErrInvalidMapping) {
		h.unmapped(err)
		err = h.Err()
	}
	return tx, err
}

// end ends a read transaction. bbolt touches no mapped memory for it, but takes its lock of the meta pages,
// which a transaction that faulted in its beginning keeps for ever: as long as nobody begins, nobody does.
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
	case <-h.dead:
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

// viewFrom is view, with begun called as soon as the transaction sees what it will see.
func (h *Handle) viewFrom(begun func(), fn func(*bolt.Tx) error) (err error) {
	h.users.RLock()
	defer h.users.RUnlock()
	if err := h.usable(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer h.caught(&err)
	tx, err := h.begin(false)
	if err != nil {
		return err
	}
	defer h.end(tx)
	begun()
	return fn(tx)
}

// update runs fn in a write transaction. The caller has the token of writing.
//
// bbolt's own Update is no use: after a panic it rolls back, for which it walks over the whole file, in a
// goroutine of its own that no guard reaches.
func (h *Handle) update(fn func(*bolt.Tx) error) (err error) {
	h.users.RLock()
	defer h.users.RUnlock()
	if err := h.usable(); err != nil {
		return err
	}
	if f := h.barred.Load(); f != nil {
		return f.Err
	}
	// Nor is there a guard in the walk by which a Commit that failed finds the free pages again.
	if err := h.whole(); err != nil {
		return err
	}
	if err := h.prove(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer h.caught(&err)
	tx, err := h.begin(true)
	if err != nil {
		return err
	}
	h.dirty = true
	h.db.AllocSize = int(min(max(tx.Size()/growPart, growLeast), growMost))
	h.mapOf(tx.Size()) // by which the last one may have outgrown it
	if err = fn(tx); err == nil {
		err = h.whole()
	}
	if disorder(err) {
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
		if isUnmapped(err) {
			h.unmapped(err)
			return h.Err()
		}
		h.Doubt(uint64(id), err)
	}
	stats := tx.Stats()
	h.most.Store(max(h.most.Load(), stats.GetPageAlloc()))
	return errors.Join(err, h.grown())
}

// disorder reports whether an error of a change tells that the file is damaged: a bucket where none can be, or none
// where one must be, or a key that nobody can have put.
func disorder(err error) bool {
	return errors.Is(err, errDisorder) || errors.Is(err, berrors.ErrIncompatibleValue) || errors.Is(err, berrors.ErrKeyTooLarge) ||
		errors.Is(err, berrors.ErrKeyRequired) || errors.Is(err, berrors.ErrBucketNameRequired)
}

// sync flushes what was written while syncs were off.
func (h *Handle) sync() (err error) {
	defer h.caught(&err)
	return h.db.Sync()
}

// whole says why the file is no longer as bbolt left it: then the handle is poisoned if it was cut short, and barred
// if it has no name any more.
func (h *Handle) whole() error {
	was := h.size.Load() // before the file is looked at: it may grow meanwhile
	size, removed, err := sizeOfFile(h.file)
	switch {
	case err != nil:
		return err
	case size < was:
		h.Poison(Failure{Err: ErrCutShort})
		return h.Err()
	case removed:
		h.Bar(ErrRemoved)
		return h.barred.Load().Err
	}
	return nil
}

// grown takes note of the size that the file has after a transaction, which makes no file smaller: one that was cut short
// meanwhile may lack what was written.
func (h *Handle) grown() error {
	size, _, err := sizeOfFile(h.file)
	switch {
	case err != nil:
		return nil // nothing is known of it
	case size < h.size.Load():
		h.Poison(Failure{Err: ErrCutShort})
		return h.Err()
	}
	h.size.Store(size)
	return nil
}

// Doubt is called when a commit has failed. One that failed before anything was synced, as on a full disk, has
// changed nothing. But after a sync that failed the system may count pages as written that never were, and later
// syncs succeed without them; and a meta page may be in place of which nobody knows whether it is on disk,
// while the next transaction writes into pages that only the one before it frees. So the file is not to be changed
// any more; it is still good for reading, and a copy takes its place.
func (h *Handle) Doubt(txid uint64, err error) {
	if beforeSync(err) && h.newestTxid() < txid {
		return
	}
	h.Bar(fmt.Errorf("the file is not to be trusted any more after: %w", err))
}

// newestTxid returns the id of the last transaction whose meta page is whole, or the highest there is where nobody knows.
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

// beforeSync reports whether an error of Commit comes from a write or from making the file larger. bbolt returns
// those of a sync as the system gave them, or in words of its own.
func beforeSync(err error) bool {
	var write *os.PathError
	return errors.As(err, &write) && write.Op == "write" || strings.HasPrefix(err.Error(), "file resize error")
}

// unlock gives the token of writing back.
func (h *Handle) unlock() { <-h.writing }

// apart runs fn, for which the caller has the token of writing, in a goroutine of its own, and gives the token back
// when it is over. When fn does not come back the caller does all the same.
func (h *Handle) apart(fn func() error) error {
	done := make(chan error, 1)
	var over atomic.Bool // it has come back, or nobody waits for that any more: whichever is first
	go func() {
		defer h.unlock()
		err := fn()
		if !over.CompareAndSwap(false, true) {
			h.strays.Add(-1)
		}
		done <- err
	}()
	timer := time.NewTimer(hungAfter)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-h.dead:
	case <-timer.C:
		h.Poison(Failure{Err: ErrHung})
	}
	timer.Reset(LeaveAfter)
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	h.strays.Add(1)
	if !over.CompareAndSwap(false, true) {
		h.strays.Add(-1)
		return <-done
	}
	return h.Err()
}

// Close closes the handle when its transactions are over; if they do not end, and if it is poisoned, it lets go of
// the file without bbolt.
func (h *Handle) Close() (err error) {
	for end := time.Now().Add(closeMost); ; time.Sleep(time.Millisecond) {
		if err := h.Err(); err != nil {
			h.abandon()
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
			h.abandon()
		}
	}()
	defer h.caught(&err)
	return h.db.Close()
}

// abandon lets go of the file of a poisoned handle. With the descriptor closed bbolt can write nothing any more,
// should a transaction still be under way. The map stays where it is: somebody may be reading it.
func (h *Handle) abandon() {
	_ = unlockFile(h.file)
	_ = h.file.Close()
}

// Leave abandons a poisoned handle when the change of the file that may be under way is over, or will never be.
func (h *Handle) Leave(ctx context.Context) error {
	most := healSettle
	if h.stuck.Load() {
		h.abandon()
		most = healSettleStuck
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case h.writing <- struct{}{}: // for good
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.abandon()
	return nil
}
