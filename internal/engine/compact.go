package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/store"
)

// compactor shrinks the file while it is in use, on request and when much of it is free.
type compactor struct {
	store    *store.Store
	log      *slog.Logger
	listener Listener
	minFree  int64 // bytes of free pages below which there is no automatic compaction

	token chan struct{} // holds a token during a compaction or a backup: one at a time

	mu    sync.Mutex // protects what follows
	stats CompactStats
}

const (
	// compactInterval is how often the free pages are counted, which costs next to nothing.
	compactInterval = time.Second

	// A quiet file is compacted when half of it is free. A file that is written to needs free pages: each commit writes to
	// new pages, so up to half of the file can be free at any time.
	quietShare = 0.5
	busyShare  = 0.6

	// The file promises to stay below three times the cost of its entries plus 16 MiB. Pages from which many entries were
	// evicted are half empty, though not free. These values start a compaction early enough.
	compactFactor = 2.5
	compactRoom   = 8 << 20

	// From a little less on, commits are small: what a transaction writes takes space beside what it replaces and what
	// readers still see, and each of these can be nearly all of a small file.
	bloatFactor = 2.25
	bloatRoom   = 6 << 20

	// Above these values compaction is urgent: the promise is about to be broken.
	urgentFactor = 2.75
	urgentRoom   = 12 << 20

	// restFactor is how many times as long as the last compaction took no automatic one follows while the file is written
	// to. Compaction then takes a tenth of the time at most. For a quiet file, and if it is urgent, the factor is 1.
	restFactor = 10
)

// errNoCompaction means that this system cannot replace an open file.
var errNoCompaction = fmt.Errorf("a file cannot be replaced while it is open on this system: %w", errors.ErrUnsupported)

// run is one compaction.
func (c *compactor) run(ctx context.Context) error {
	if !store.CanReplace {
		return errNoCompaction
	}
	select {
	case c.token <- struct{}{}:
		defer func() { <-c.token }()
	case <-ctx.Done():
		return ctx.Err()
	}
	start := time.Now()
	before, after, err := c.compact(ctx)
	c.mu.Lock()
	if c.stats.Err = err; err != nil {
		c.stats.Failed++
	} else {
		c.stats.Compactions++
		c.stats.Last = time.Now()
		c.stats.Took = time.Since(start)
		c.stats.Gained = before - after
	}
	c.mu.Unlock()
	if err == nil {
		c.listener.Compacted(before, after)
	}
	return err
}

func (c *compactor) compact(ctx context.Context) (before, after int64, err error) {
	return c.store.Shrink(ctx, c.progress("compact"))
}

// progress returns a function that reports the progress of a copy.
func (c *compactor) progress(what string) func(done int64) {
	if !c.listener.WantsProgress() {
		return func(int64) {}
	}
	_, used, _ := c.store.Size() // without a total there is still progress
	total := cost.Sum(used).Bytes
	return func(done int64) {
		c.listener.Progress(what, min(done, total), total)
	}
}

// loop compacts the file when it is due, until ctx ends.
func (c *compactor) loop(ctx context.Context, written func() uint64) {
	ticker := time.NewTicker(compactInterval)
	defer ticker.Stop()
	var ended time.Time
	var took, pause time.Duration
	last, failing := written(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := written()
		quiet := now == last
		last = now
		if c.store.IsMountPoint() {
			continue // that was reported already
		}
		due, urgent := c.due(quiet)
		rest := took
		if !quiet && !urgent {
			rest *= restFactor
		}
		if time.Since(ended) < max(rest, pause) || !due {
			continue
		}
		start := time.Now()
		err := c.run(ctx)
		ended, pause = time.Now(), 0
		took = ended.Sub(start)
		failed := err != nil && ctx.Err() == nil && !errors.Is(err, errs.ErrClosed)
		if failed {
			pause = time.Minute
			if !failing {
				c.log.Error("keepcache: compaction failed", "path", c.store.Path(), "err", err)
			}
		}
		failing = failed
	}
}

// due reports whether enough of the file is free, or the file comes close to its promised size, and whether that is
// urgent.
func (c *compactor) due(quiet bool) (due, urgent bool) {
	_, free := c.store.Free()
	file, cost, err := c.store.Measure()
	if err != nil {
		return false, false
	}
	part := busyShare
	if quiet {
		part = quietShare
	}
	due = free >= c.minFree && float64(free) >= part*float64(file) ||
		c.store.WorthCompacting(file, cost, compactFactor, compactRoom)
	return due && c.store.Changed(file, free, cost), c.store.WorthCompacting(file, cost, urgentFactor, urgentRoom)
}

func (c *compactor) snapshot() CompactStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// copy makes a copy of the file in a directory and returns it, open for reading.
func (c *compactor) copy(ctx context.Context, in *disk.Dir) (f *os.File, name string, err error) {
	select {
	case c.token <- struct{}{}:
		defer func() { <-c.token }()
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	return c.store.CopyBeside(ctx, in, c.progress("backup"))
}

// CompactStats counts compactions, see keepcache.CompactStats.
type CompactStats struct {
	Compactions uint64
	Failed      uint64
	Last        time.Time
	Took        time.Duration
	Gained      int64
	Err         error
}

// Compact commits, sweeps and shrinks the file.
func (e *Engine) Compact(ctx context.Context) error {
	if err := e.commits.commit(); err != nil {
		return err
	}
	if err := e.sweeper.sweep(ctx, true); err != nil { // what is removed first is not copied
		return err
	}
	return e.Within(ctx, e.compactor.run)
}

// CopyBeside makes a copy of the file in a directory and returns it, open for reading. The copy is as of one point in
// time after the call. The caller removes it.
func (e *Engine) CopyBeside(ctx context.Context, in *disk.Dir) (f *os.File, name string, err error) {
	return e.compactor.copy(ctx, in)
}

// Within runs long work under a context that ends with ctx and with the engine.
func (e *Engine) Within(ctx context.Context, fn func(context.Context) error) error {
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	err := fn(both)
	if err != nil && ctx.Err() == nil && e.closed.Load() {
		return errs.ErrClosed
	}
	return err
}
