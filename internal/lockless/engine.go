package lockless

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/verify"
)

// The following makes Reader a backend: everything besides reading.

// Verify checks the file, and what the journal has beyond it.
func (l *Reader) Verify(ctx context.Context) (verify.Report, error) {
	now := format.Millis(time.Now())
	a := &audit{reader: l, tail: newTail("")}
	k, err := a.known(ctx)
	if err != nil {
		return verify.Report{}, err
	}
	return verify.Run(ctx, a, k, now)
}

func (l *Reader) Closed() bool { return l.shut.Load() }

// Shut makes all further calls fail with ErrClosed.
func (l *Reader) Shut() error {
	l.shut.Store(true)
	return nil
}

// AwaitCreation does nothing: a reader creates no buckets.
func (l *Reader) AwaitCreation(*engine.Ref) {}

// Revision returns 0, because nothing is written.
func (l *Reader) Revision() uint64 { return 0 }

// readOnly refuses all writes, and everything else that needs the lock.
type readOnly struct{}

var errNeedsLock = fmt.Errorf("it cannot be done without the lock: %w", errors.ErrUnsupported)

func (readOnly) Write(*engine.Ref, ...*engine.Write) error  { return errs.ErrReadOnly }
func (readOnly) WriteAll(map[string][]*engine.Write) error  { return errs.ErrReadOnly }
func (readOnly) Replace(string, bool) (bool, error)         { return false, errs.ErrReadOnly }
func (readOnly) InvalidateTags([]string) error              { return errs.ErrReadOnly }
func (readOnly) Slide(*engine.Ref, string, *engine.Reading) {}
func (readOnly) WaitDurable() error                         { return errs.ErrReadOnly }
func (readOnly) Flush() error                               { return nil } // nothing was written
func (readOnly) Commit() error                              { return errs.ErrReadOnly }
func (readOnly) Sweep(context.Context) error                { return errs.ErrReadOnly }
func (readOnly) Swept() uint64                              { return 0 }
func (readOnly) Compact(context.Context) error              { return errs.ErrReadOnly }
func (readOnly) OpenDir() (*disk.Dir, error)                { return nil, errNeedsLock }

// Within calls nothing, because all long work needs the lock.
func (readOnly) Within(context.Context, func(context.Context) error) error { return errNeedsLock }

func (readOnly) CopyBeside(context.Context, *disk.Dir) (*os.File, string, error) {
	return nil, "", errNeedsLock
}

// CopyAtRest fails, because another process may change the files while they are copied.
func (readOnly) CopyAtRest(context.Context, string) error { return errNeedsLock }
