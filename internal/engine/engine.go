// Package engine is one cache as one process runs it: it takes writes in, commits, replays, sweeps, evicts, compacts and heals. What values
// mean, loads and events are not its business: it tells those above through a Listener.
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

// Engine is one cache as one process runs it: it takes writes in, commits, replays, sweeps, evicts, compacts and heals. All its methods
// may be called from any goroutine.
type Engine struct {
	Judge
	conf      Config
	store     *store.Store
	memory    *memory.Tier
	writer    *writer    // nil where it is open for reading only
	commits   *committer // the same
	compactor *compactor // the same
	sweeper   *sweeper
	evictor   *evictor // nil where nothing is limited
	healer    *healer

	tagsSwept   time.Time // when sweepTags last ran; used by one sweep at a time
	vacantSwept time.Time // when sweepVacant last ran; the same

	inherited       journal.Report // of the journal that was found, where it is open for reading only
	journalProblems []error        // with it

	mu          sync.RWMutex          // protects what follows
	buckets     map[string]*namespace // by name: every bucket that exists, or that the file still has
	byID        map[uint64]*namespace // those of them that exist
	mostBuckets int                   // that there were at a time, since the two maps were made
	lastID      uint64                // the highest bucket id ever given out

	closed atomic.Bool
	ctx    context.Context    // ends with close
	stop   context.CancelFunc // ends the background work
	work   sync.WaitGroup     // the background work
}

// Config says how an engine is to work. All of it is filled in.
type Config struct {
	ReadOnly    bool
	LockTimeout time.Duration // for which another process that has the file is waited for
	Quarantine  bool          // a damaged file is kept aside, and a fresh one takes its place; otherwise it stays as it is

	MaxBytes, MemoryBytes, JournalBytes, CommitBytes, CompactBytes int64            // unlimited is none
	Limits                                                         map[string]Limit // of single buckets, by name; nothing of those that have none

	SyncAlways                    bool          // a write returns when it is durable
	SyncInterval                  time.Duration // 0 is never, as with what follows
	CommitInterval, SweepInterval time.Duration

	Log      *slog.Logger
	Ground   *ground.Ground // of what outlives a call
	Listener Listener
}

// Listener is told what happens in an engine.
type Listener interface {
	// WantsWrites reports whether Published is to be called.
	WantsWrites() bool

	// Published is called for a write that is about to be seen, while the shards of its keys are locked: it is quick, calls nothing of
	// the engine, and keeps nothing of what it is given. What was loaded for one of the keys before is void.
	Published(buckets []string, writes []Written)

	// Cleared is called when a bucket is about to lose all its entries, and again before others may write to it. What was loaded for
	// it before is void.
	Cleared(bucket string)

	WantsExpired() bool
	WantsEvicted() bool
	WantsProgress() bool
	Expired(bucket, key string, inWrite bool) // inWrite says that a write waits for it
	Evicted(bucket, key string)
	Progress(what string, done, total int64) // in bytes
	Compacted(before, after int64)           // in bytes
	Unavailable(err error)
	Healed(how string)
	Quarantined(aside string, why error) // aside is empty where what was there could be kept nowhere
	BadJournal(why error)
}

// Written is a key that is written.
type Written struct {
	Bucket, Key string
	Quiet       bool         // nobody sees a change
	By          *atomic.Bool // see Write.Void
}

// Unlimited is a number of bytes or entries that nothing reaches, and that divided into segments of the journal fits 32 bits.
const Unlimited = 1 << 50

// Shut lets no more calls in, after it has brought to the journal what memory alone knows.
func (e *Engine) Shut() (err error) {
	if e.sweeper.lives != nil {
		err = e.saveSlidKeys(e.memory.Slid())
	}
	e.closed.Store(true)
	return err
}

// Closed reports whether calls are let in no more.
func (e *Engine) Closed() bool { return e.closed.Load() }

// Close ends the background work, commits what is left and lets go of the file. err is that of what came before.
func (e *Engine) Close(err error) error {
	if e.writer != nil {
		e.writer.close()
		e.stop()
		e.healer.last()
		err = errors.Join(err, e.commits.finish())
		e.work.Wait()
		e.compactor.turn <- struct{}{} // a compaction or copy that is on its way ends
		if j := e.writer.position().journal; j != nil {
			// What a failed commit held is in the journal for the next Open.
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

// Revision returns the last revision given out.
func (e *Engine) Revision() uint64 {
	if e.writer == nil {
		return 0
	}
	return e.writer.last()
}

// Flush returns when what was written before is durable.
func (e *Engine) Flush() error {
	if e.writer == nil {
		return nil
	}
	return e.writer.flush()
}

// Observed returns when what a caller has read, and writes nothing because of, is as durable as a write is when it returns.
func (e *Engine) Observed() error { return e.writer.seen() }

// Commit moves what was written before into the file.
func (e *Engine) Commit() error { return e.commits.commit() }

// Sweep removes what is due by now, from memory and file.
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

// CopyAtRest copies file and journal as they are to a path and beside it. It is for an engine that is open for reading only.
func (e *Engine) CopyAtRest(ctx context.Context, to string) error {
	return e.store.CopyAtRest(ctx, to)
}

// Verify proves the file, and what memory and journal have beyond it.
func (e *Engine) Verify(ctx context.Context) (verify.Report, error) {
	now := format.Millis(time.Now())
	k := verify.Known{IDs: e.bucketIDs(), Late: lateIn(e.memory), Journal: e.journalReport(), Problems: e.journalProblems}
	return verify.Run(ctx, e.store, k, now)
}
