package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/keepcache/keepcache/internal/clock"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// writer takes writes in: it gives each its revision, appends it to the journal and publishes it in memory,
// all under the lock of the key's shard, so that the versions of a key have one order everywhere. The
// committer moves what is published into the file later.
type writer struct {
	clock  *clock.Clock
	memory *memory.Tier
	tags   *tagTable
	always bool // each write waits until it is flushed

	open func(after uint64) (*journal.Journal, error) // makes a journal for revisions above after

	pinnedMost int64         // bytes of pinned entries at which writers wait
	commitAt   int64         // bytes of pinned entries at which a commit begins
	journalAt  int64         // bytes of the journal in use at which one begins
	needFlush  chan struct{} // gets a token when something is to be flushed within the interval
	commits    *committer
	listener   Listener

	path string // for the log
	log  *slog.Logger

	waiting atomic.Int64  // writers who wait for room, or for their turn to
	turn    chan struct{} // holds a token while it is somebody's
	wanted  atomic.Int64  // bytes of pinned entries for which he waits

	naming atomic.Int64 // bytes of names
	coming atomic.Int64 // bytes of entries that have their revision and are not pinned yet; rises while mu is held

	mu        sync.Mutex       // orders all writes; protects what follows
	revision  uint64           // the last one given out
	journal   *journal.Journal // nil when the last one failed: then writes wait for their commit
	unlogged  uint64           // the last revision that the journal does not have
	names     []store.NameOp   // published, and not in the file yet; what is in it stays as it is
	unflushed bool             // needFlush has been told
	closed    bool
	told      bool // that there can be no journal, since there was one
	scratch   []byte
}

// Write is one outcome on its way: a record to put under a key, or the removal of the key.
type Write struct {
	id       uint64
	sum      uint32 // of the bucket's name
	hash     uint64 // of id and key
	Key      string
	OwnKey   bool   // key stands in front of the record, in the same memory; otherwise it is the caller's
	Stored   []byte // format.RowSize bytes of room and the record, framed, not sealed; nil removes the key
	Header   format.Header
	ns       *namespace
	Void     *atomic.Bool // of the load that brought it: once that is true it is not to be stored; nil if there is none
	quiet    bool         // it changes nothing that anybody sees, and so voids no load
	later    bool         // the caller has it flushed
	SameLife bool         // the entry lives on as it is: what reads have prolonged it by meanwhile stays
	expects  bool         // the write is only for a key that is still as its basis says
	basis    memory.Basis
	before   memory.Replaced // what publication replaced
	late     bool            // that had expired by then, in memory alone
}

// Record returns the record of a write, or nil.
func (d *Write) Record() []byte { return format.RecordIn(d.Stored) }

// ErrMissed says that a key was not as a write expected. Nothing was written.
var ErrMissed = errors.New("the key has changed meanwhile")

// write takes namings and writes in as one piece, all of it or nothing, and returns when they are as durable
// as the mode asks. The writes are of different keys.
func (w *writer) write(names []store.NameOp, writes ...*Write) error {
	last, j, err := w.takeInTurn(names, writes)
	if err == nil {
		defer w.commits.sweeper.replacedInMemory(writes) // also where the outcome is unknown: they are seen
	}
	switch {
	case err != nil:
		return err
	case j == nil:
		return w.settleUnlogged(last, names, writes)
	case w.always && (len(writes) == 0 || !writes[0].later):
		if err := j.Flush(last); err != nil {
			// The pages of a failed flush may be lost whatever a second one says: only the file can still help.
			w.lost(j)
			return unknownOutcome(w.commits.await(last))
		}
	}
	return nil
}

// unknownOutcome marks an error as one after which the write may or may not be there.
func unknownOutcome(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errs.ErrUnknownOutcome, err)
}

// settleUnlogged waits for the commit of a write that is in no journal. If that fails the write is taken back:
// what was there before is there again.
func (w *writer) settleUnlogged(last uint64, names []store.NameOp, writes []*Write) error {
	err := w.commits.awaitUnlogged(last)
	if err == nil {
		return nil
	}
	defer w.commits.pause()()
	if w.commits.reached() >= last {
		return nil // by another commit than the one that failed
	}
	if w.commits.contains(last) {
		return unknownOutcome(err)
	}
	locked := w.shardsOf(writes)
	w.memory.Lock(locked)
	defer w.memory.Unlock(locked)
	for _, d := range writes {
		if !w.memory.Retractable(d.hash, d.id, d.Key, d.Header.Revision) {
			// It was overwritten meanwhile, by somebody who may have read it: what was published stays, all of it.
			return unknownOutcome(err)
		}
	}
	for _, d := range writes {
		w.memory.Retract(d.hash, d.id, d.Key, &d.before)
		d.late = false // it is still there, for a commit to find
	}
	if len(names) > 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.names = slices.DeleteFunc(slices.Clone(w.names), func(n store.NameOp) bool { return slices.Contains(names, n) })
		w.naming.Store(bytesOfNames(w.names))
	}
	return err
}

// shardsOf returns the shards of memory that the keys of writes are in.
func (w *writer) shardsOf(writes []*Write) (set memory.ShardSet) {
	for _, d := range writes {
		w.memory.AddShard(&set, d.hash)
	}
	return set
}

// take appends and publishes. It returns the last revision, and the journal that has the write, or nil if
// only a commit will make it last.
//
// The shards of the keys are locked from before the revisions are given out until all is published, so whoever looks into
// a shard after he has asked how far writes have come sees everything up to there. What is done in here, and not under the
// lock that orders all writes, other writers need not wait for.
func (w *writer) take(names []store.NameOp, writes []*Write) (last uint64, j *journal.Journal, err error) {
	locked := w.shardsOf(writes)
	w.memory.Lock(locked)
	defer w.memory.Unlock(locked)
	for _, d := range writes {
		if d.expects && !w.memory.Meets(w.clock, d.hash, d.id, d.Key, &d.basis) || d.Void != nil && d.Void.Load() {
			return 0, nil, ErrMissed
		}
	}
	if last, j, err = w.enter(names, writes); err != nil {
		return 0, nil, err
	}
	w.tell(names, writes)
	for _, d := range writes {
		slid := int64(0)
		if d.SameLife {
			slid = w.memory.ExpiresAt(d.hash, d.id, d.Key)
		}
		if d.Stored == nil {
			d.Header.StaleUntil = format.Millis(w.clock.Now())
		}
		key := d.Key
		if !d.OwnKey {
			key = strings.Clone(key)
		}
		if slid <= d.Header.ExpiresAt {
			slid = 0
		}
		d.before = w.memory.Publish(d.hash, d.id, key, d.Stored, d.Header, slid)
		d.late = d.lapsed(w.clock)
	}
	w.coming.Add(-memoryOf(writes))
	if w.crowded(j) {
		w.commits.kick()
	}
	return last, j, nil
}

// tell tells the listener of a write, if it wants to know.
func (w *writer) tell(names []store.NameOp, writes []*Write) {
	if !w.listener.WantsWrites() {
		return
	}
	var buckets []string
	for i := range names {
		if !names[i].Tag {
			buckets = append(buckets, names[i].Name)
		}
	}
	all := writtenLists.Get().(*[]Written)
	for _, d := range writes {
		*all = append(*all, Written{d.ns.name, d.Key, d.quiet, d.Void})
	}
	w.listener.Published(buckets, *all)
	clear(*all)
	if *all = (*all)[:0]; cap(*all) <= writtenKept {
		writtenLists.Put(all)
	}
}

// writtenLists has lists for tell: while anything is being loaded it is called for every write.
var writtenLists = sync.Pool{New: func() any { return new([]Written) }}

// writtenKept bounds the lists that are kept, each of which has some 50 bytes for a key.
const writtenKept = 1024

// enter gives the namings and the writes, whose shards are locked, their revisions and appends them.
func (w *writer) enter(names []store.NameOp, writes []*Write) (last uint64, j *journal.Journal, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, nil, errs.ErrClosed
	}
	// What is larger than half of the room needs that half free: all of it would never be while others write.
	more, most := memoryOf(writes), w.most()
	all := more
	if len(names) > 0 {
		all += bytesOfNames(names)
	}
	if taken := w.taken(); taken > 0 && taken+min(all, most/2) > most {
		return 0, nil, errPinsFull
	}
	first := w.revision + 1
	last = w.revision + uint64(len(names)+len(writes))
	if j, err = w.append(first, last, names, writes); err != nil {
		return 0, nil, err
	}
	w.revision = last
	w.coming.Add(more)
	if j == nil {
		w.unlogged = last
	}
	if len(names) > 0 {
		w.publishNames(names)
	}
	if j != nil && !w.always && !w.unflushed {
		w.unflushed = true
		select {
		case w.needFlush <- struct{}{}:
		default: // a token is on its way already
		}
	}
	return last, j, nil
}

// publishNames notes namings for the next commit.
func (w *writer) publishNames(names []store.NameOp) {
	w.names = append(w.names, names...)
	w.naming.Add(bytesOfNames(names))
	for _, n := range names {
		if n.Tag {
			w.tags.put(n.Name, n.Revision)
		}
	}
}

// append seals the writes with their revisions and appends them to the journal as one piece.
// It returns the journal that has them, or nil for none.
func (w *writer) append(first, last uint64, names []store.NameOp, writes []*Write) (*journal.Journal, error) {
	revision, j := first, w.journal
	buf, parts := w.scratch[:0], [][]byte(nil)
	large := len(writes) > 1 && memoryOf(writes) > scratchBytes
	fits := !large || j != nil && recordBytes(writes) <= int64(j.MaxPiece())
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
	var tail []byte // the record of the last outcome, which need not be copied together with the rest
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
			// The journal reads records from where they are: a piece of all of them would be as large again.
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
		go j.Close(false) // waits for a flush, which is not for this lock
		return nil, nil
	case errors.Is(err, journal.ErrCreate) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT):
		// Where the disk is full the file has no room either. Otherwise it may well take the write, unless it takes nothing: then
		// a new journal would have to wait for it, and the next write may be able to make this one.
		if w.commits.failing() {
			w.commits.demand() // nothing else may ask whether that is over
			return nil, err
		}
		w.without(err)
		w.journal = nil // the next one is tried after the next commit
		return nil, nil
	}
	if err == nil {
		w.told = false
	}
	return j, err
}

// without says once that there is no journal, as where its directory cannot be written to. Each write waits for a commit then.
func (w *writer) without(err error) {
	if !w.told {
		w.told = true
		// The caller holds locks, and a logger may use the cache.
		go w.log.Warn("keepcache: there can be no journal, so each write waits until it is in the file", "path", w.path, "err", err)
	}
}

// recordBytes returns the bytes of all records of writes.
func recordBytes(writes []*Write) (n int64) {
	for _, d := range writes {
		n += int64(len(d.Record()))
	}
	return n
}

// scratchBytes bounds the buffer that stays for the next piece. A batch of a thousand small entries fits.
const scratchBytes = 1 << 20

// lost lets go of a journal that failed. Writes wait for their commits until there is a new one.
func (w *writer) lost(j *journal.Journal) {
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

// renew opens a new journal if the last one failed, after a commit up to mark. Where it cannot, the next commit tries again.
func (w *writer) renew(mark uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.journal != nil {
		return
	}
	j, err := w.open(mark)
	if err != nil {
		w.without(err)
		return
	}
	w.journal = j
}

// position is how far writes have come, for a commit.
type position struct {
	mark     uint64 // every revision up to it has been published, or will be before the locks of its shards are free
	unlogged uint64
	names    []store.NameOp
	journal  *journal.Journal
}

// last returns the last revision given out.
func (w *writer) last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revision
}

func (w *writer) position() position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return position{w.revision, w.unlogged, w.names[:len(w.names):len(w.names)], w.journal}
}

// owes reports whether there is something that the file does not have yet.
func (w *writer) owes() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.names) > 0 || w.taken() > 0
}

// named forgets the first n namings, which the file has now.
func (w *writer) named(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = slices.Clone(w.names[n:]) // without the room that these needed
	w.naming.Store(bytesOfNames(w.names))
}

// recount has the names count in full that a commit has not taken after all.
func (w *writer) recount() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.naming.Store(bytesOfNames(w.names))
}

// close lets no more writes in.
func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}
