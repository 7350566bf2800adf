package engine

import (
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/recency"
	"github.com/keepcache/keepcache/internal/store"
)

// evictor keeps the file within its budgets. The committer calls it after each of its transactions, so that
// a Set never looks at the file for it: what expired goes first, then what is worth least.
//
// Who goes is decided by a hand that walks the entries in the order of their keys, looks at a run of
// neighbours and evicts those of the run that were used least. How lately and how often a key was used
// stands in a table of bounded size in memory; a read writes nothing to the file. After a restart the table is
// empty, and among entries without a score those go first that were written first.
//
// The other candidate was a queue in the order of writing with a second chance for what was read. Replayed on
// the traces of bench/hitratio the hand wins where it matters: it is above exact LRU nearly everywhere
// (Zipf 0.8 at 10 %: 48.2 against 43.5, the queue 44.7), keeps more than half of a loop that does not fit (LRU and
// the queue keep nothing) and its victims are neighbours, so deletions land in few pages. The queue would
// cost the file a second index, and with it a page for each overwrite.
type evictor struct {
	store    *store.Store
	memory   *memory.Tier
	sweeper  *sweeper
	log      *slog.Logger
	listener Listener

	recency  *recency.Table
	watching atomic.Bool // uses are counted: from half of a budget on

	limit   Limit            // of the whole file
	buckets map[string]Limit // of single buckets, by name
	idOf    func(name string) uint64

	again func()                     // asks for another round
	hands map[uint64]*store.Eviction // by bucket id, 0 for the whole file; protected by the committer's lock
	due   []byte                     // row of the expiry index at which its own sweep goes on; protected by the same

	mu    sync.Mutex // protects what follows
	stats EvictionStats
}

// Limit is a budget.
type Limit struct{ Bytes, Entries int64 }

const (
	// evictFree and evictTimes bound what one round evicts: some for nothing, so that a budget that was
	// lowered is reached without writes, and a small multiple of what was written.
	evictFree  = 4096
	evictTimes = 4

	// evictSlack is the part of a budget that is freed beyond what is over. The expiry rows of victims lie all over
	// the index, so the more victims go at once the more of them share a page.
	evictSlack = 32

	// recencyShare is the part of MemoryBytes that the table of uses takes. At 64 MiB it has a million slots, four
	// bytes each. With less than one slot an entry the hit ratio falls towards that of FIFO, slowly.
	recencyShare   = 16
	recencyMost    = 16 << 20
	recencyByLimit = 8 // of a small budget the table needs no more than such a part
)

// newEvictor returns the evictor that a configuration asks for, or nil if nothing is limited.
func newEvictor(c *Config) *evictor {
	e := &evictor{limit: Limit{c.MaxBytes, Unlimited}, buckets: c.Limits, hands: make(map[uint64]*store.Eviction), log: c.Log, listener: c.Listener}
	most := c.MaxBytes
	for _, own := range c.Limits {
		most = max(most, own.Bytes)
	}
	if e.limit.Bytes >= Unlimited && len(e.buckets) == 0 {
		return nil
	}
	e.recency = recency.New(min(c.MemoryBytes/recencyShare, most/recencyByLimit, recencyMost))
	return e
}

// use counts a use of a key.
func (e *evictor) use(hash uint64) {
	if e != nil && e.watching.Load() {
		e.recency.Use(hash)
	}
}

// admit returns errs.ErrTooLarge if a record can be in no file within the budget.
func (e *evictor) admit(bucket string, d *Write) error {
	if e == nil || d.Stored == nil {
		return nil
	}
	most := e.limit.Bytes
	if own, ok := e.buckets[bucket]; ok {
		most = min(most, own.Bytes)
	}
	page := e.store.Paging()
	if page.AtMost(len(d.Key), len(d.Record())) <= most {
		return nil
	}
	n := page.Entry(len(d.Key), len(d.Record()))
	if d.Header.StaleUntil != format.Never {
		n += page.Row(len(d.Key))
	}
	if n > most {
		return errs.ErrTooLarge
	}
	return nil
}

// round is what the evictor is called for.
type round struct {
	written int    // entries
	bytes   int64  // of their keys and records
	floor   uint64 // what has a later revision was just written
}

// enforce brings the file back into its budgets, as far as one round may go. The caller keeps commits from
// running.
//
// A failure is logged and fails no commit: if the disk is the cause, the next commit will say so.
func (e *evictor) enforce(r round) {
	if e == nil {
		return
	}
	if err := e.enforceAll(r); err != nil && !errors.Is(err, errs.ErrClosed) {
		e.log.Error("keepcache: eviction failed", "path", e.store.Path(), "err", err)
	}
}

// scope is a budget and what it is for.
type scope struct {
	id uint64 // of a bucket, or 0 for the whole file
	Limit
}

// scopes returns the budgets that there are, those of single buckets first.
func (e *evictor) scopes() (all []scope) {
	for name, own := range e.buckets {
		if id := e.idOf(name); id != 0 {
			all = append(all, scope{id, own})
		}
	}
	return append(all, scope{0, e.limit})
}

// uses returns what a scope is full of. Buckets themselves, which no eviction removes, count in that of the whole
// file: up to half of it, so that there is room for entries whatever their number.
func (sc scope) uses(used map[uint64]cost.Usage) store.Amount {
	if sc.id != 0 {
		return store.Amount{Entries: used[sc.id].Entries, Cost: used[sc.id].Cost()}
	}
	u := cost.Sum(used)
	return store.Amount{Entries: u.Entries, Cost: u.Cost() - max(0, used[0].Cost()-sc.Bytes/2)}
}

// over returns by how much a budget is passed, and whether it is.
func (l Limit) over(u store.Amount) (store.Amount, bool) {
	over := store.Amount{Entries: u.Entries - l.Entries, Cost: u.Cost - l.Bytes}
	return over, over.Entries > 0 || over.Cost > 0
}

// joined is what was evicted in the transaction of a commit.
type joined struct {
	in      func(store.EvictTx) error
	swept   store.Swept
	size    []store.Victim
	entries []store.Victim
}

// join returns what a commit is to do in its own transaction to keep the budgets: its pages are in work already,
// so most of what has to go costs little more there. What it writes is still pinned, and so never a victim. What
// is left is for enforce.
func (e *evictor) join(names []store.NameOp) *joined {
	j := &joined{}
	if e == nil {
		return j
	}
	cleared := slices.ContainsFunc(names, func(n store.NameOp) bool { return n.Old != 0 })
	j.in = func(f store.EvictTx) error {
		used, err := f.Used()
		for _, sc := range e.scopes() {
			if err != nil {
				return err
			}
			u := sc.uses(used)
			over, is := sc.over(u)
			if !is {
				continue
			}
			if sc.id == 0 && (cleared || e.sweeper.owes()) {
				continue // the sweeper frees room at no loss first
			}
			if j.swept.Removed == 0 && !j.swept.More {
				if j.swept, err = f.Sweep(&e.due, store.CertainlyExpired(e.memory.Lives)); err != nil {
					return err
				}
				if used, err = f.Used(); err != nil {
					return err
				}
				u = sc.uses(used)
				if over, is = sc.over(u); !is || j.swept.More {
					continue
				}
			}
			var victims []store.Victim
			if victims, err = f.Evict(e.plan(sc, u, over, math.MaxUint64)); err != nil {
				return err
			}
			if over.Cost > 0 {
				j.size = append(j.size, victims...)
			} else {
				j.entries = append(j.entries, victims...)
			}
			used, err = f.Used()
		}
		return err
	}
	return j
}

// afterCommit is what follows that transaction, when readers of the file see it.
func (e *evictor) afterCommit(j *joined) {
	if e == nil {
		return
	}
	e.sweeper.swept(j.swept)
	e.forget(j.size)
	e.forget(j.entries)
	e.count(j.size, false)
	e.count(j.entries, true)
}

// forget has memory forget victims.
func (e *evictor) forget(victims []store.Victim) {
	for i := range victims {
		e.memory.Forget(victims[i].ID, victims[i].Key)
	}
}

// plan says how to free what is over in a scope, and a little more, so that small commits do not each need to
// look for victims.
func (e *evictor) plan(sc scope, u, over store.Amount, floor uint64) *store.Eviction {
	h := e.hands[sc.id]
	if h == nil {
		h = &store.Eviction{ID: sc.id, Limit: sc.Bytes, Low: new(recency.Quantile), Spare: e.memory.IsPinned, Score: e.score}
		e.hands[sc.id] = h
	}
	h.All, h.Step, h.Room = u, evictStep, pagesRoom(e.memory.Limit())
	h.Floor, h.SpareNewest, h.Force = floor, false, false
	h.Over = store.Amount{Entries: over.Entries + sc.Entries/evictSlack, Cost: over.Cost + sc.Bytes/evictSlack}
	return h
}

func (e *evictor) enforceAll(r round) error {
	_, used, err := e.store.Size()
	if err != nil {
		return err
	}
	watching := false
	for _, sc := range e.scopes() {
		u := sc.uses(used)
		_, half := Limit{sc.Bytes / 2, sc.Entries / 2}.over(u)
		watching = watching || half
		if sc.id == 0 {
			before := e.recency.Bytes()
			e.recency.SetKeys(u.Entries)
			e.memory.Reserve(e.recency.Bytes() - before)
		}
		if err := e.enforceOne(r, sc); err != nil {
			return err
		}
	}
	e.watching.Store(watching)
	return nil
}

// enforceOne enforces one budget.
func (e *evictor) enforceOne(r round, sc scope) error {
	most := evictFree + evictTimes*r.written
	floor, barren, anyway := r.floor, int64(0), false
	for evicted, bytes := 0, int64(0); ; {
		_, used, err := e.store.Size()
		u := sc.uses(used)
		over, is := sc.over(u)
		if err != nil || !is {
			return err
		}
		if evicted >= most && bytes >= 2*r.bytes {
			e.again()
			return nil
		}
		swept, err := e.sweep(sc.id == 0)
		if err != nil {
			return err
		}
		if swept > 0 {
			evicted += swept
			continue
		}
		q := e.plan(sc, u, over, floor)
		q.SpareNewest, q.Force = floor != r.floor, anyway
		victims, err := e.store.Evict(q)
		if err != nil {
			return err
		}
		if q.Examined == 0 {
			return nil // the counts say more than there is, and however often one looks nothing is found
		}
		if len(victims) == 0 {
			if barren += q.Examined; barren < u.Entries {
				continue
			}
			barren = 0
			switch {
			case !anyway:
				anyway = true
			case floor != math.MaxUint64:
				floor = math.MaxUint64 // what was just written is over the budget alone: all but the last of it may go
			default:
				return nil // all that is left waits to be overwritten by the next commit
			}
			continue
		}
		barren = 0
		e.forget(victims)
		evicted += len(victims)
		bytes += e.count(victims, over.Cost <= 0)
	}
}

func (e *evictor) score(id uint64, key []byte) uint32 {
	return e.recency.Score(e.memory.HashBytes(id, key))
}

// sweep does one step of the sweeper's work, which frees room at no loss.
func (e *evictor) sweep(retired bool) (removed int, err error) {
	did, err := e.store.SweepOn(&e.due, store.CertainlyExpired(e.memory.Lives))
	if err != nil {
		return 0, err
	}
	removed = did.Removed + did.Moved + did.Orphans
	e.sweeper.swept(did)
	if removed == 0 && retired {
		removed, _, err = e.sweeper.stepRetired()
	}
	return removed, err
}

// count books victims and tells of them.
func (e *evictor) count(victims []store.Victim, byEntries bool) (bytes int64) {
	if len(victims) == 0 {
		return 0
	}
	for _, v := range victims {
		bytes += v.Bytes
	}
	e.mu.Lock()
	if byEntries {
		e.stats.Entries += uint64(len(victims))
	} else {
		e.stats.Size += uint64(len(victims))
	}
	e.stats.Bytes += uint64(bytes)
	e.mu.Unlock()
	if e.listener.WantsEvicted() {
		name := ""
		for i, v := range victims { // those of a bucket follow each other
			if i == 0 || v.ID != victims[i-1].ID {
				name = e.sweeper.nameOf(v.ID)
			}
			e.listener.Evicted(name, v.Key)
		}
	}
	return bytes
}

// retire forgets the hands of buckets that are no more. The caller keeps commits from running.
func (e *evictor) retire(ids []uint64) {
	if e == nil || len(e.hands) == 0 {
		return
	}
	for _, id := range ids {
		delete(e.hands, id)
	}
}

func (e *evictor) snapshot() EvictionStats {
	if e == nil {
		return EvictionStats{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// evictStep bounds how many entries one transaction evicts: as many as a commit puts and some more, so that one is enough. Each has its
// price, and small ones halve the throughput of writers.
const evictStep = pressedTimes * commitEntries

// EvictionStats count the entries that left the file, see keepcache.EvictionStats.
type EvictionStats struct {
	Expired  uint64
	Size     uint64
	Entries  uint64
	Explicit uint64
	Bytes    uint64
}
