// Package engine runs one cache in one process: it takes writes, commits, replays, sweeps, evicts, compacts and heals.
// It knows nothing of values, loads and events, and reports to the layer above through a Listener.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
	"github.com/keepcache/keepcache/internal/verify"
)

// Engine runs one cache in one process. All its methods may be called from any goroutine.
type Engine struct {
	Judge
	conf      Config
	store     *store.Store
	memory    *memory.Tier
	writer    *writer    // nil if open for reading only
	commits   *committer // nil if open for reading only
	compactor *compactor // nil if open for reading only
	sweeper   *sweeper
	evictor   *evictor // nil if nothing is limited
	healer    *healer

	tagsSwept  time.Time // when sweepTags last ran; one sweep at a time uses it
	emptySwept time.Time // when sweepEmpty last ran; the same

	inherited       journal.Report // report on the journal that was found, if open for reading only
	journalProblems []error        // of that journal

	mu          sync.RWMutex          // protects what follows
	buckets     map[string]*namespace // by name: every bucket that exists, or that the file still has
	byID        map[uint64]*namespace // by id: the buckets that exist
	peakBuckets int                   // the most buckets at any time since the maps were made
	lastID      uint64                // the highest bucket id that was assigned

	closed atomic.Bool
	ctx    context.Context    // ends with Close
	stop   context.CancelFunc // ends the background work
	work   sync.WaitGroup     // the background work
}

// Config configures an engine. All fields must be set.
type Config struct {
	ReadOnly    bool
	LockTimeout time.Duration // how long to wait for another process that has the file
	Quarantine  bool          // quarantine a damaged file and start with a fresh one; otherwise Open fails

	MaxBytes, MemoryBytes, JournalBytes, CommitBytes, CompactBytes int64            // Unlimited for none
	Limits                                                         map[string]Limit // of single buckets, by name

	SyncAlways                    bool          // a write returns when it is durable
	SyncInterval                  time.Duration // 0 is never, also for the following intervals
	CommitInterval, SweepInterval time.Duration

	Log      *slog.Logger
	Ground   *ground.Ground // runs what outlives a call
	Listener Listener
}

// Unlimited is a number of bytes or entries that nothing reaches. Divided into segments of the journal it fits 32 bits.
const Unlimited = 1 << 50

// Shut makes all further calls fail with ErrClosed. Before that, it writes to the journal what only memory knows.
func (e *Engine) Shut() (err error) {
	if e.sweeper.lives != nil {
		err = e.saveSlidKeys(e.memory.Slid())
	}
	e.closed.Store(true)
	return err
}

// Closed reports whether Shut was called.
func (e *Engine) Closed() bool { return e.closed.Load() }

// Close ends the background work, commits what is left and closes the file. It returns err joined with its own errors.
func (e *Engine) Close(err error) error {
	if e.writer != nil {
		e.writer.close()
		e.stop()
		e.healer.finalAttempt()
		err = errors.Join(err, e.commits.finish())
		e.work.Wait()
		e.compactor.token <- struct{}{} // waits for a running compaction or copy
		if j := e.writer.position().journal; j != nil {
			// If a commit failed, the journal keeps its writes for the next Open.
			err = errors.Join(err, j.Close(err == nil))
		} else if err == nil {
			err = e.store.RemoveJournal()
		}
	} else {
		e.stop()
		e.work.Wait()
	}
	return errors.Join(err, e.store.Close(), e.store.Dir().Close())
}

// Revision returns the last revision that was assigned.
func (e *Engine) Revision() uint64 {
	if e.writer == nil {
		return 0
	}
	return e.writer.lastRevision()
}

// Flush waits until everything written so far is durable.
func (e *Engine) Flush() error {
	if e.writer == nil {
		return nil
	}
	return e.writer.flush()
}

// WaitDurable is for callers that write nothing because of what they have read. It waits until that is as durable as a
// write.
func (e *Engine) WaitDurable() error { return e.writer.waitDurable() }

// Commit moves everything written so far into the file.
func (e *Engine) Commit() error { return e.commits.commit() }

// Sweep removes what has expired by now, from memory and file.
func (e *Engine) Sweep(ctx context.Context) error {
	if ctx.Err() == nil {
		if err := e.commits.commit(); err != nil {
			return err
		}
	}
	return e.sweeper.sweep(ctx, true)
}

// Swept returns how many entries sweeps have removed.
func (e *Engine) Swept() uint64 { return e.sweeper.total() }

// OpenDir opens the directory of the file once more.
func (e *Engine) OpenDir() (*disk.Dir, error) { return e.store.Dir().Again() }

// CopyAtRest copies file and journal as they are. It is for an engine that is open for reading only.
func (e *Engine) CopyAtRest(ctx context.Context, to string) error {
	return e.store.CopyAtRest(ctx, to)
}

// Verify checks the file, and what memory and journal have beyond it.
func (e *Engine) Verify(ctx context.Context) (verify.Report, error) {
	now := format.Millis(time.Now())
	k := verify.Known{IDs: e.bucketIDs(), Late: lateIn(e.memory), Journal: e.journalReport(), Problems: e.journalProblems}
	return verify.Run(ctx, e.store, k, now)
}
