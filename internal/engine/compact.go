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

// compactor shrinks the file while it is in use, when asked to and when much of it is free.
type compactor struct {
	store    *store.Store
	log      *slog.Logger
	listener Listener
	least    int64 // bytes of free pages below which nothing happens by itself

	turn chan struct{} // holds a token while a compaction or a backup is on its way: one at a time

	mu    sync.Mutex // protects what follows
	stats CompactStats
}

const (
	// compactLook is how often the free pages are counted, which costs next to nothing.
	compactLook = time.Second

	// A quiet file is compacted when half of it is free. One that is written to needs free pages: each commit
	// writes what it changes to new ones, so up to half of the file can be free at any time.
	compactQuiet = 0.5
	compactBusy  = 0.6

	// The file is to stay below three times what its entries cost, and 16 MiB. Pages from which many entries were
	// evicted are half empty, though not free. What follows begins a compaction early enough.
	compactTimes = 2.5
	compactRoom  = 8 << 20

	// From a little below that on commits are small: what a transaction writes takes room beside what it replaces
	// and what readers still see, each of them nearly all of a small file.
	swollenTimes = 2.25
	swollenRoom  = 6 << 20

	// Beyond that it is urgent: the promise is about to be broken.
	urgentTimes = 2.75
	urgentRoom  = 12 << 20

	// compactRest is for how many times the length of the last compaction none follows by itself while the file is
	// written to; compacting so takes a tenth of the time at most. In a quiet file, and where it is urgent, once is
	// enough.
	compactRest = 10
)

// errNoCompaction says that the system cannot do it.
var errNoCompaction = fmt.Errorf("a file cannot be replaced while it is open on this system: %w", errors.ErrUnsupported)

// run is one compaction.
func (c *compactor) run(ctx context.Context) error {
	if !store.CanReplace {
		return errNoCompaction
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
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
	return c.store.Shrink(ctx, c.copied("compact"))
}

// copied returns a function that tells how far a copy is.
func (c *compactor) copied(what string) func(done int64) {
	if !c.listener.WantsProgress() {
		return func(int64) {}
	}
	_, used, _ := c.store.Size() // without a total there is still a progress
	total := cost.Sum(used).Bytes
	return func(done int64) {
		c.listener.Progress(what, min(done, total), total)
	}
}

// loop compacts when the file is due, until ctx ends.
func (c *compactor) loop(ctx context.Context, written func() uint64) {
	ticker := time.NewTicker(compactLook)
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
			continue // that has been told
		}
		due, urgent := c.due(quiet)
		rest := took
		if !quiet && !urgent {
			rest *= compactRest
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

// due reports whether enough of the file is free, or the file nears what it promises to stay below, and whether that
// is urgent.
func (c *compactor) due(quiet bool) (due, urgent bool) {
	_, free := c.store.Free()
	file, cost, err := c.store.Measure()
	if err != nil {
		return false, false
	}
	part := compactBusy
	if quiet {
		part = compactQuiet
	}
	due = free >= c.least && float64(free) >= part*float64(file) || c.store.WorthCompacting(file, cost, compactTimes, compactRoom)
	return due && c.store.Changed(file, free, cost), c.store.WorthCompacting(file, cost, urgentTimes, urgentRoom)
}

func (c *compactor) snapshot() CompactStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// copy makes a copy of the file beside it and returns it, open for reading.
func (c *compactor) copy(ctx context.Context, in *disk.Dir) (f *os.File, name string, err error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	return c.store.CopyBeside(ctx, in, c.copied("backup"))
}

// CompactStats say what compactions did, see keepcache.CompactStats.
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
	if err := e.sweeper.sweep(ctx, true); err != nil { // what is removed before is not copied
		return err
	}
	return e.Within(ctx, e.compactor.run)
}

// CopyBeside makes a copy of the file in a directory, as of one moment after it was called, and returns it, open for reading. The
// caller removes it.
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
