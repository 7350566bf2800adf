// Package lockless reads a cache that another process may have open, without its lock.
package lockless

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/pagetree"
	"github.com/keepcache/keepcache/internal/store"
)

// Reader reads a cache that another process may have open, without its lock. It notes the state of the file (its inode,
// the current meta page, and the commit mark in it), scans the journal above the mark, and reads the pages that it
// needs. If the state is still the same afterwards, what it has read is right:
//
//   - bbolt does not overwrite the pages of a state before the next state is current, and a compaction makes a new
//     file.
//   - The journal keeps what is above the mark until a transaction with a higher mark is current.
//   - A write that had returned when the scan began is in the journal or in the file.
//
// Otherwise it reads again. Each operation opens the file for itself, so nothing is shared and any number of goroutines
// can read. It maps nothing and changes nothing.
type Reader struct {
	engine.Judge
	readOnly
	path     string // see store.Store
	dir      atomic.Pointer[disk.Dir]
	firstDir *disk.Dir // the directory at Open

	shut atomic.Bool // all calls fail

	mu     sync.Mutex // held while dir changes; protects closed
	closed bool
}

const (
	// maxReadTime is how long a read goes on while the file keeps changing, and minTries is how often it tries at least. A
	// look-up takes 0.1 ms; commits without a pause between them take 10 ms each.
	maxReadTime = 5 * time.Second
	minTries    = 10

	// The first spinTries tries follow each other at once; after that there is a pause between two.
	spinTries = 50
	pause     = 100 * time.Microsecond

	// damageTries is how often damage must be found in an unchanged state before it is reported.
	damageTries = 3
)

var (
	errChanged  = errors.New("it changes while it is read")
	errOutpaced = fmt.Errorf("%w: the process that has the cache open writes faster than it can be read without its lock",
		errs.ErrUnavailable)
)

// Open checks that there is a cache at path and returns a reader of it.
func Open(in *disk.Dir, path string) (*Reader, error) {
	exists, err := store.CheckPath(in, path)
	if err == nil && !exists {
		err = &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	l := &Reader{Judge: engine.NewJudge(), path: path, firstDir: in}
	l.dir.Store(in)
	return l, l.withView(newTail(""), func(*view) error { return nil })
}

// view is one state of the cache while it is read.
type view struct {
	tree     *pagetree.Tree
	meta     pagetree.Meta
	identity [16]byte
	mark     uint64
	floor    uint64 // the revision up to which every tag counts as invalidated
	tail     *tail
	began    int64 // the time before anything was read
}

// withView calls fn, once or several times, until the cache has not changed during a call. fn must start over each
// time. What it has read last is right if withView returns nil.
func (l *Reader) withView(t *tail, fn func(*view) error) (err error) {
	var f *os.File
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	damaged := 0
	start := time.Now()
	for try := 0; ; try++ {
		if try >= minTries && time.Since(start) > maxReadTime {
			return errors.Join(errOutpaced, err)
		}
		if try >= spinTries {
			time.Sleep(pause)
		} else if try > 0 {
			runtime.Gosched()
		}
		if f == nil {
			if f, err = l.open(l.path); err != nil {
				return err
			}
		}
		var same, ours bool
		same, err = l.attempt(f, t, fn)
		if ours, err = l.isCurrent(f, err); !ours {
			f.Close()
			f = nil
		}
		switch {
		case errors.Is(err, errTailTooLarge):
			return err
		case !ours || !same:
			continue
		case errors.Is(err, errChanged):
			continue
		case errors.Is(err, pagetree.ErrBroken) || errors.Is(err, errs.ErrCorrupt) || errors.Is(err, errs.ErrFormat):
			if damaged++; damaged < damageTries {
				continue
			}
			if errors.Is(err, pagetree.ErrBroken) {
				err = fmt.Errorf("%w: %w", errs.ErrCorrupt, err)
			}
		}
		return err
	}
}

// open opens one of the cache's files. If the directory has been removed and its path leads to another one now, it
// continues there, as with a file that was replaced.
func (l *Reader) open(path string) (*os.File, error) {
	in := l.dir.Load()
	f, err := in.OpenRegular(path, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, fs.ErrClosed):
		return nil, errs.ErrClosed
	case !errors.Is(err, fs.ErrNotExist) || !in.Removed():
		return f, err
	}
	again, real, openErr := disk.OpenDir(l.path)
	if openErr != nil {
		return nil, err
	}
	if real != l.path || !l.move(in, again) {
		return nil, errors.Join(err, again.Close())
	}
	return again.OpenRegular(path, os.O_RDONLY, 0)
}

// move switches to another directory. It reports false if that has happened already or the reader is closed. The old
// directory is closed by the garbage collector, because others may still use it.
func (l *Reader) move(from, to *disk.Dir) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed && l.dir.CompareAndSwap(from, to)
}

// Close closes the current directory and the first one. It returns err joined with its own errors.
func (l *Reader) Close(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if now := l.dir.Load(); now != l.firstDir {
		err = errors.Join(err, now.Close())
	}
	return errors.Join(err, l.firstDir.Close())
}

// isCurrent reports whether the path still leads to f. It returns err unless it has an error of its own.
func (l *Reader) isCurrent(f *os.File, err error) (bool, error) {
	opened, statErr := f.Stat()
	if statErr != nil {
		return true, statErr
	}
	now, statErr := l.dir.Load().Lstat(l.path)
	if statErr != nil {
		return true, statErr
	}
	if now.Mode()&fs.ModeSymlink != 0 {
		return true, store.ErrSymlink
	}
	return os.SameFile(opened, now), err
}

// attempt calls fn with the state of f, and reports whether that state is still current.
func (l *Reader) attempt(f *os.File, t *tail, fn func(*view) error) (same bool, err error) {
	began := format.Millis(l.Now())
	meta, found := pagetree.Newest(f)
	if !found {
		info, err := f.Stat()
		if err == nil {
			err = store.Unfinished(f, info.Size())
		}
		switch {
		case errors.Is(err, store.ErrHalfRemade):
			return false, errChanged // its owner is working on it, or the next one will
		case err == nil:
			err = errs.ErrFormat
		}
		return true, err
	}
	v := &view{meta: meta, tree: meta.Tree(f), tail: t, began: began}
	if err = v.recognise(); err == nil {
		err = l.catchUp(v)
	}
	if err == nil {
		err = fn(v)
	}
	now, found := pagetree.Newest(f)
	return found && now == meta, err
}

// recognise checks that the file is a cache in a format that we read.
func (v *view) recognise() error {
	meta, found, err := v.tree.Root().Bucket(format.MetaBucket)
	if err != nil {
		return err
	}
	version, _, err := meta.Get(format.MetaFormat)
	if err != nil {
		return err
	}
	if !found || len(version) != 4 {
		return errs.ErrFormat
	}
	if n := binary.BigEndian.Uint32(version); n != format.Version {
		return fmt.Errorf("%w: it has format %d, this version reads %d", errs.ErrFormat, n, format.Version)
	}
	identity, _, err := meta.Get(format.MetaIdentity)
	if err != nil {
		return err
	}
	mark, _, err := meta.Get(format.MetaSequence)
	if err != nil {
		return err
	}
	if copy(v.identity[:], identity) != len(v.identity) || len(mark) != 8 {
		return fmt.Errorf("%w: bucket meta is incomplete", errs.ErrCorrupt)
	}
	v.mark = format.ReadUint64(mark)
	floor, _, err := meta.Get(format.MetaTagFloor)
	v.floor = format.ReadUint64(floor)
	return err
}

// catchUp reads everything above the mark from the journal into the tail. A scan can fail because the writer is at
// work, so its results count only if it succeeds.
func (l *Reader) catchUp(v *view) error {
	t := v.tail
	base, err := v.fileID(t.bucket)
	if err != nil {
		return err
	}
	if t.all || t.identity != v.identity || !t.follows(base) {
		t.reset(v.identity, base, v.mark)
	}
	f, err := l.open(beside.Journal(l.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd) // Stat would make the next flush write the file's times too
	if err != nil {
		return err
	}
	after := max(t.seen, v.mark)
	report, err := journal.ReplayFrom(f, size, v.identity, after, t.take)
	switch {
	case errors.Is(err, format.ErrMalformed):
		return fmt.Errorf("%w: the journal: %w", errChanged, err)
	case err != nil:
		return err
	case report.Damaged() || report.Gap || report.Foreign:
		return fmt.Errorf("%w: the journal", errChanged)
	}
	t.seen = max(after, report.Last)
	return nil
}

// fileID returns the id of a bucket in the file, or 0 if it has none.
func (v *view) fileID(name string) (uint64, error) {
	if name == "" {
		return 0, nil
	}
	names, _, err := v.tree.Root().Bucket(format.BucketsBucket)
	if err != nil {
		return 0, err
	}
	id, _, err := names.Get([]byte(name))
	return format.ReadUint64(id), err
}

// id returns the id of the tail's bucket, or 0 if it does not exist.
func (v *view) id() uint64 {
	if n, ok := v.tail.names[v.tail.bucket]; ok && n.revision > v.mark {
		return n.id
	}
	return v.tail.base
}

// entries returns the file's bucket with the entries of an id.
func (v *view) entries(id uint64) (pagetree.Bucket, error) {
	all, _, err := v.tree.Root().Bucket(format.EntriesBucket)
	if err != nil {
		return pagetree.Bucket{}, err
	}
	b, _, err := all.Bucket(format.Uint64(id))
	return b, err
}

// invalidated calls found for each of the tags that was invalidated, with the latest revision of that.
func (v *view) invalidated(list format.Tags, found func(tag string, revision uint64)) error {
	if len(list) == 0 {
		return nil
	}
	rows, _, err := v.tree.Root().Bucket(format.TagsBucket)
	if err != nil {
		return err
	}
	for tag := range list.All() {
		row, _, err := rows.Get(tag)
		if err != nil {
			return err
		}
		if at := max(format.ReadUint64(row), v.tail.tags[string(tag)]); at > 0 {
			found(string(tag), at)
		}
	}
	return nil
}
