package keepcache

import (
	"context"
	"os"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/verify"
)

// backend is what everything in this package rests on: one cache, however it is opened. See the engine for what its methods do. All of
// them may be called from any goroutine.
type backend interface {
	// Reading.
	read(at *ref, key string, sliding bool) (reading, error)
	peek(at *ref, key string, sliding bool) (reading, error)
	scan(at *ref, first, prefix string, fn func([]stored) bool) error
	stateOf(h *format.Header, options []byte) state
	invalidated(tags format.Tags) (revision uint64)
	now() time.Time
	revision() uint64
	bucketNames() ([]string, error)
	soonest(n int, buckets []string) ([]ending, error)

	// Writing, under expectations.
	write(at *ref, drafts ...*draft) error
	writeAll(buckets map[string][]*draft) error
	replace(name string, drop bool) (found bool, err error)
	invalidateTag(tag string) error
	slide(at *ref, key string, r *reading)
	awaitFirst(at *ref)
	seen() error
	flush() error

	// Maintenance.
	commit() error
	sweep(ctx context.Context) error
	swept() uint64
	compact(ctx context.Context) error
	within(ctx context.Context, fn func(context.Context) error) error
	directory() (*disk.Dir, error)
	copyBeside(ctx context.Context, in *disk.Dir) (f *os.File, name string, err error)
	copyAtRest(ctx context.Context, to string) error
	verify(ctx context.Context) (verify.Report, error)
	standing() standing

	isClosed() bool
	shut() error
	close(err error) error
}

// seam is where this package ends and an engine begins. The local engine is called directly where it is called all day: through an
// interface, what a call hands over by pointer would be taken for something that is kept, and cost an allocation each time.
type seam struct {
	backend
	local *engine // the same, if it is the local one; else nil
}

func (s *seam) read(at *ref, key string, sliding bool) (reading, error) {
	if s.local != nil {
		return s.local.read(at, key, sliding)
	}
	return s.backend.read(at, key, sliding)
}

func (s *seam) slide(at *ref, key string, r *reading) {
	if s.local != nil {
		s.local.slide(at, key, r)
		return
	}
	other := *r
	s.backend.slide(at, key, &other)
	*r = other
}

func (s *seam) write(at *ref, drafts ...*draft) error {
	if s.local != nil {
		return s.local.write(at, drafts...)
	}
	others := make([]*draft, len(drafts))
	for i, d := range drafts {
		other := *d
		others[i] = &other
	}
	err := s.backend.write(at, others...)
	for i, d := range drafts {
		*d = *others[i]
	}
	return err
}
