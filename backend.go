package keepcache

import (
	"context"
	"os"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/verify"
)

// backend is what everything in this package rests on: one cache, however it is opened. Its implementations are
// engine.Engine, which says what the methods do, and lockless.Reader. All of them may be called from any goroutine.
type backend interface {
	// Reading.
	Read(at *engine.Ref, key string, sliding bool) (engine.Reading, error)
	Peek(at *engine.Ref, key string, sliding bool) (engine.Reading, error)
	Scan(at *engine.Ref, scan engine.Scan, fn func([]engine.ScanEntry) bool) error
	StateOf(h *format.Header, options []byte) engine.State
	Invalidated(tags format.Tags) (revision uint64)
	Now() time.Time
	Revision() uint64
	BucketNames() ([]string, error)
	Expiring(n int, buckets []string) ([]engine.Ending, error)

	// Writing, under expectations.
	Write(at *engine.Ref, writes ...*engine.Write) error
	WriteAll(buckets map[string][]*engine.Write) error
	Replace(name string, drop bool) (found bool, err error)
	InvalidateTags(tags []string) error
	Slide(at *engine.Ref, key string, r *engine.Reading)
	AwaitCreation(at *engine.Ref)
	WaitDurable() error
	Flush() error

	// Maintenance.
	Commit() error
	Sweep(ctx context.Context) error
	Swept() uint64
	Compact(ctx context.Context) error
	Within(ctx context.Context, fn func(context.Context) error) error
	OpenDir() (*disk.Dir, error)
	CopyBeside(ctx context.Context, in *disk.Dir) (f *os.File, name string, err error)
	CopyAtRest(ctx context.Context, to string) error
	Verify(ctx context.Context) (verify.Report, error)
	Stats() engine.Stats

	Closed() bool
	Shut() error
	Close(err error) error
}

// seam is where this package ends and an engine begins. The local engine is called directly where it is called all day:
// through an interface, what a call hands over by pointer would be taken for something that is kept, and cost an
// allocation each time.
type seam struct {
	backend
	local *engine.Engine // the same, if it is the local one; else nil
}

// ReadInto is Read into an empty r.
func (s *seam) ReadInto(r *engine.Reading, at *engine.Ref, key string, sliding bool) (err error) {
	if s.local != nil {
		return s.local.ReadInto(r, at, key, sliding)
	}
	*r, err = s.backend.Read(at, key, sliding)
	return err
}

func (s *seam) Slide(at *engine.Ref, key string, r *engine.Reading) {
	if s.local != nil {
		s.local.Slide(at, key, r)
		return
	}
	other := *r
	s.backend.Slide(at, key, &other)
	*r = other
}

func (s *seam) Write(at *engine.Ref, writes ...*engine.Write) error {
	if s.local != nil {
		return s.local.Write(at, writes...)
	}
	others := make([]*engine.Write, len(writes))
	for i, d := range writes {
		other := *d
		others[i] = &other
	}
	err := s.backend.Write(at, others...)
	for i, d := range writes {
		*d = *others[i]
	}
	return err
}
