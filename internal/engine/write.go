package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// writer takes writes: it assigns each a revision, appends it to the journal and publishes it in memory, all under the
// lock of the key's shard. So the versions of a key have the same order everywhere. The committer later moves what is
// published into the file.
type writer struct {
	clock  *clock.Clock
	memory *memory.Tier
	tags   *tagTable
	always bool // each write waits until it is flushed

	open func(after uint64) (*journal.Journal, error) // creates a journal for revisions above after

	maxPinned int64         // bytes of pinned entries at which writers wait
	commitAt  int64         // bytes of pinned entries at which a commit starts
	journalAt int64         // bytes used in the journal at which a commit starts
	needFlush chan struct{} // gets a token when something must be flushed within the interval
	commits   *committer
	listener  Listener

	path string // for the log
	log  *slog.Logger

	waiters     atomic.Int64  // writers that wait for room or for roomToken
	roomToken   chan struct{} // held by the one writer that waits for room
	wantedBytes atomic.Int64  // bytes of pinned entries for which that writer waits

	nameBytes    atomic.Int64 // bytes of names that are not in the file yet
	pendingBytes atomic.Int64 // bytes of entries that have a revision and are not pinned yet; raised under mu

	mu             sync.Mutex       // orders all writes; protects what follows
	revision       uint64           // the last one that was assigned
	journal        *journal.Journal // nil after the last one failed: then writes wait for their commit
	unlogged       uint64           // the last revision that is not in the journal
	names          []store.NameOp   // published but not in the file yet; existing elements never change
	flushRequested bool             // needFlush has a token for what was written
	closed         bool
	warned         bool // of the lack of a journal, since there was one
	scratch        []byte
}

// Write is a write to one key: a record to put, or a deletion.
type Write struct {
	id              uint64
	sum             uint32 // of the bucket's name
	hash            uint64 // of id and key
	Key             string
	OwnKey          bool   // Key stands in front of the record, in the same allocation; otherwise it is the caller's
	Stored          []byte // format.RowSize bytes of room and the record, framed but not sealed; nil deletes the key
	Header          format.Header
	ns              *namespace
	Void            *atomic.Bool // of the load that made the write: once true it must not be stored; nil if there is none
	quiet           bool         // nobody sees a change, so it voids no load
	deferFlush      bool         // the caller flushes it
	SameLife        bool         // keep the life that reads have given the entry meanwhile
	expects         bool         // the write is conditional on expected
	expected        memory.Expectation
	replaced        memory.Replaced // what publication replaced
	replacedExpired bool            // that had expired, and only memory had it
}

// Record returns the record of a write, or nil for a deletion.
func (d *Write) Record() []byte { return format.RecordIn(d.Stored) }

// ErrMissed means that a key was not as a write expected. Nothing was written.
var ErrMissed = errors.New("the key has changed meanwhile")

// write takes name operations and writes as one log record, all or nothing, and returns when they are as durable as the
// mode requires. The writes must be to different keys.
func (w *writer) write(names []store.NameOp, writes ...*Write) error {
	last, j, err := w.publish(names, writes)
	if err == nil {
		defer w.commits.sweeper.replacedInMemory(writes) // readers see them even if the outcome is unknown
	}
	switch {
	case err != nil:
		return err
	case j == nil:
		return w.awaitCommitOrRetract(last, names, writes)
	case w.always && (len(writes) == 0 || !writes[0].deferFlush):
		if err := j.Flush(last); err != nil {
			// After a failed flush the pages may be lost even if another flush succeeds, so only the file can help.
			w.journalFailed(j)
			return unknownOutcome(w.commits.await(last))
		}
	}
	return nil
}

// unknownOutcome marks an error after which the write may or may not be there.
func unknownOutcome(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errs.ErrUnknownOutcome, err)
}

// awaitCommitOrRetract waits for the commit of a write that is not in the journal. If the commit fails, it retracts the
// write: what the write replaced is there again.
func (w *writer) awaitCommitOrRetract(last uint64, names []store.NameOp, writes []*Write) error {
	err := w.commits.awaitUnlogged(last)
	if err == nil {
		return nil
	}
	defer w.commits.pause()()
	if w.commits.committed() >= last {
		return nil // by a later commit than the one that failed
	}
	if w.commits.mayContain(last) {
		return unknownOutcome(err)
	}
	locked := w.shardsOf(writes)
	w.memory.Lock(locked)
	defer w.memory.Unlock(locked)
	for _, d := range writes {
		if !w.memory.Retractable(d.hash, d.id, d.Key, d.Header.Revision) {
			// It was overwritten meanwhile, and the other writer may have read it. So everything that was published stays.
			return unknownOutcome(err)
		}
	}
	for _, d := range writes {
		w.memory.Retract(d.hash, d.id, d.Key, &d.replaced)
		d.replacedExpired = false // it is back, and a commit will find it
	}
	if len(names) > 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.names = slices.DeleteFunc(slices.Clone(w.names), func(n store.NameOp) bool { return slices.Contains(names, n) })
		w.nameBytes.Store(nameOpsBytes(w.names))
	}
	return err
}

// shardsOf returns the shards of the writes' keys.
func (w *writer) shardsOf(writes []*Write) (set memory.ShardSet) {
	for _, d := range writes {
		w.memory.AddShard(&set, d.hash)
	}
	return set
}

// tryPublish appends and publishes. It returns the last revision, and the journal that has the writes, or nil if they
// need a commit. It fails if there is no room.
//
// The shards of the keys are locked from before the revisions are assigned until all is published. So whoever reads the
// writer's position and then looks into a shard sees everything up to there. Other writers need not wait for what is
// done here outside of mu, which orders all writes.
func (w *writer) tryPublish(names []store.NameOp, writes []*Write) (last uint64, j *journal.Journal, err error) {
	locked := w.shardsOf(writes)
	w.memory.Lock(locked)
	defer w.memory.Unlock(locked)
	for _, d := range writes {
		if d.expects && !w.memory.Meets(w.clock, d.hash, d.id, d.Key, &d.expected) || d.Void != nil && d.Void.Load() {
			return 0, nil, ErrMissed
		}
	}
	if last, j, err = w.sequence(names, writes); err != nil {
		return 0, nil, err
	}
	w.notify(names, writes)
	for _, d := range writes {
		slid := int64(0)
		if d.SameLife {
			slid = w.memory.ExpiresAt(d.hash, d.id, d.Key)
		}
		if d.Stored == nil {
			d.Header.StaleUntil = format.Millis(w.clock.Now())
		}
		key := d.Key
		if !d.OwnKey {
			key = strings.Clone(key)
		}
		if slid <= d.Header.ExpiresAt {
			slid = 0
		}
		d.replaced = w.memory.Publish(d.hash, d.id, key, d.Stored, d.Header, slid)
		d.replacedExpired = d.hadExpired(w.clock)
	}
	w.pendingBytes.Add(-memoryBytes(writes))
	if w.commitDue(j) {
		w.commits.wakeLoop()
	}
	return last, j, nil
}

// position is how far writes have come, for a commit.
type position struct {
	mark     uint64 // every revision up to it is published, or will be before its shards are unlocked
	unlogged uint64
	names    []store.NameOp
	journal  *journal.Journal
}

// lastRevision returns the last revision that was assigned.
func (w *writer) lastRevision() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revision
}

func (w *writer) position() position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return position{w.revision, w.unlogged, w.names[:len(w.names):len(w.names)], w.journal}
}

// hasUncommitted reports whether there is something that the file does not have yet.
func (w *writer) hasUncommitted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.names) > 0 || w.used() > 0
}

// dropNames drops the first n name operations, which the file has now.
func (w *writer) dropNames(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = slices.Clone(w.names[n:]) // without the capacity that these needed
	w.nameBytes.Store(nameOpsBytes(w.names))
}

// recountNames counts the names of a failed commit in full again.
func (w *writer) recountNames() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nameBytes.Store(nameOpsBytes(w.names))
}

// close makes all further writes fail with ErrClosed.
func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}
