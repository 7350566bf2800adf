package engine

import (
	"errors"
	"syscall"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/store"
)

// Appending writes to the journal, and going on without one.

// sequence assigns revisions to the name operations and the writes, whose shards are locked, and appends them to the
// journal.
func (w *writer) sequence(names []store.NameOp, writes []*Write) (last uint64, j *journal.Journal, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, nil, errs.ErrClosed
	}
	// A write larger than half of the limit only needs that half free. All of it would never be free while others write.
	more, most := memoryBytes(writes), w.limit()
	all := more
	if len(names) > 0 {
		all += nameOpsBytes(names)
	}
	if taken := w.used(); taken > 0 && taken+min(all, most/2) > most {
		return 0, nil, errMemoryFull
	}
	first := w.revision + 1
	last = w.revision + uint64(len(names)+len(writes))
	if j, err = w.append(first, last, names, writes); err != nil {
		return 0, nil, err
	}
	w.revision = last
	w.pendingBytes.Add(more)
	if j == nil {
		w.unlogged = last
	}
	if len(names) > 0 {
		w.publishNames(names)
	}
	if j != nil && !w.always && !w.flushRequested {
		w.flushRequested = true
		select {
		case w.needFlush <- struct{}{}:
		default: // there is a token already
		}
	}
	return last, j, nil
}

// publishNames adds name operations for the next commit.
func (w *writer) publishNames(names []store.NameOp) {
	w.names = append(w.names, names...)
	w.nameBytes.Add(nameOpsBytes(names))
	for _, n := range names {
		if n.Tag {
			w.tags.put(n.Name, n.Revision)
		}
	}
}

// append seals the writes with their revisions and appends them to the journal as one log record. It returns the
// journal, or nil if the journal does not have them.
func (w *writer) append(first, last uint64, names []store.NameOp, writes []*Write) (*journal.Journal, error) {
	revision, j := first, w.journal
	buf, parts := w.scratch[:0], [][]byte(nil)
	large := len(writes) > 1 && memoryBytes(writes) > scratchBytes
	fits := !large || j != nil && recordBytes(writes) <= int64(j.MaxRecord())
	for i := range names {
		n := &names[i]
		n.Revision = revision
		o := format.Op{Kind: format.OpBucket, ID: n.ID, Key: n.Name}
		if n.Tag {
			o.Kind = format.OpInvalidate
		}
		buf = format.AppendOp(buf, &o)
		revision++
	}
	if large {
		parts = append(make([][]byte, 0, 1+2*len(writes)), buf)
	}
	var tail []byte // the last record, which need not be copied
	for i, d := range writes {
		d.Header.Revision = revision
		o := format.Op{Kind: format.OpDelete, ID: d.id, Key: d.Key}
		if d.Stored != nil {
			o.Kind, o.Record = format.OpPut, d.Record()
			format.Seal(o.Record, d.sum, d.Key, revision)
		}
		revision++
		switch {
		case !fits:
			continue
		case large:
			// The journal reads records from where they are: one buffer for all of them would be as large again.
			if cap(buf)-len(buf) < format.MaxOpHead {
				buf = make([]byte, 0, scratchBytes)
			}
			at := len(buf)
			buf = format.AppendOp(buf, &o)
			parts = append(parts, buf[at:len(buf):len(buf)], o.Record)
			continue
		}
		buf = format.AppendOp(buf, &o)
		if i == len(writes)-1 {
			tail = o.Record
		} else {
			buf = append(buf, o.Record...)
		}
	}
	if cap(buf) <= scratchBytes {
		w.scratch = buf
	}
	if j == nil || !fits {
		return nil, nil
	}
	var err error
	if large {
		err = j.Append(first, last, parts...)
	} else {
		err = j.Append(first, last, buf, tail)
	}
	switch {
	case errors.Is(err, journal.ErrTooLarge):
		return nil, nil
	case errors.Is(err, journal.ErrFailed):
		w.journal = nil
		go j.Close(false) // waits for a flush, which must not happen under this lock
		return nil, nil
	case errors.Is(err, journal.ErrCreate) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT):
		// If the disk is full, the file has no room either. Otherwise the file may well take the write. If commits fail too,
		// a new journal would have to wait for one, while the next write may be able to create this one.
		if w.commits.failing() {
			w.commits.request() // nothing else finds out when commits succeed again
			return nil, err
		}
		w.warnNoJournal(err)
		w.journal = nil // the next commit tries to create another
		return nil, nil
	}
	if err == nil {
		w.warned = false
	}
	return j, err
}

// warnNoJournal logs, once, that there is no journal, for example because its directory is not writable.
func (w *writer) warnNoJournal(err error) {
	if !w.warned {
		w.warned = true
		// The caller holds locks, and a logger may use the cache.
		go w.log.Warn("keepcache: there can be no journal, so each write waits until it is in the file",
			"path", w.path, "err", err)
	}
}

// recordBytes returns the size of all records of writes.
func recordBytes(writes []*Write) (n int64) {
	for _, d := range writes {
		n += int64(len(d.Record()))
	}
	return n
}

// scratchBytes bounds the buffer that is kept for the next log record. A batch of a thousand small entries fits.
const scratchBytes = 1 << 20

// journalFailed closes a journal that failed. Writes wait for their commits until there is a new one.
func (w *writer) journalFailed(j *journal.Journal) {
	w.mu.Lock()
	first := w.journal == j
	if first {
		w.journal = nil
		w.unlogged = w.revision
	}
	w.mu.Unlock()
	if first {
		j.Close(false)
	}
}

// renewJournal opens a new journal if the last one failed, after a commit up to mark. If it fails, the next commit
// tries again.
func (w *writer) renewJournal(mark uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.journal != nil {
		return
	}
	j, err := w.open(mark)
	if err != nil {
		w.warnNoJournal(err)
		return
	}
	w.journal = j
}
