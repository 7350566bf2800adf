package keepcache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/verify"
)

// What of an engine a reader without the lock has, besides reading.

// verify proves the file, and what the journal has beyond it.
func (l *live) verify(ctx context.Context) (verify.Report, error) {
	now := format.Millis(time.Now())
	a := &liveAudit{live: l, tail: newTail("")}
	k, err := a.known(ctx)
	if err != nil {
		return verify.Report{}, err
	}
	return verify.Run(ctx, a, k, now)
}

func (l *live) isClosed() bool { return l.over.Load() }

// shut lets no more calls in.
func (l *live) shut() error {
	l.over.Store(true)
	return nil
}

// awaitFirst has nothing to wait for.
func (l *live) awaitFirst(*ref) {}

// revision is 0: nothing is written.
func (l *live) revision() uint64 { return 0 }

// readOnly is what an engine does about writes that it cannot make.
type readOnly struct{}

var errNeedsLock = fmt.Errorf("it cannot be done without the lock: %w", errors.ErrUnsupported)

func (readOnly) write(*ref, ...*draft) error                                      { return errs.ErrReadOnly }
func (readOnly) writeAll(map[string][]*draft) error                               { return errs.ErrReadOnly }
func (readOnly) replace(string, bool) (bool, error)                               { return false, errs.ErrReadOnly }
func (readOnly) invalidateTag(string) error                                       { return errs.ErrReadOnly }
func (readOnly) slide(*ref, string, *reading)                                     {}
func (readOnly) seen() error                                                      { return errs.ErrReadOnly }
func (readOnly) flush() error                                                     { return nil } // nothing was written
func (readOnly) commit() error                                                    { return errs.ErrReadOnly }
func (readOnly) sweep(context.Context) error                                      { return errs.ErrReadOnly }
func (readOnly) swept() uint64                                                    { return 0 }
func (readOnly) compact(context.Context) error                                    { return errs.ErrReadOnly }
func (readOnly) within(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }
func (readOnly) directory() (*disk.Dir, error)                                    { return nil, errNeedsLock }

func (readOnly) copyBeside(context.Context, *disk.Dir) (*os.File, string, error) {
	return nil, "", errNeedsLock
}

// copyAtRest fails: what another process changes meanwhile is not of one moment.
func (readOnly) copyAtRest(context.Context, string) error { return errNeedsLock }
