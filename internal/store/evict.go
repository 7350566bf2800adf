package store

import (
	"bytes"
	"cmp"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/recency"
)

// Eviction is a request to Store.Evict.
type Eviction struct {
	ID          uint64   // of the bucket; 0 for the whole file
	from        position // position of the hand
	All, Over   Amount   // what there is, and how much of it must go
	Limit       int64    // an entry that costs more than this goes in any case
	Step        int      // entries that one transaction may remove
	Room        int64    // bytes of memory that the changed pages may take
	Floor       uint64   // entries with a later revision are spared
	SpareNewest bool     // so is the newest entry of each run
	Force       bool     // evict the lowest scores of each run even if all of it was used much
	Low         *recency.Quantile
	Spare       func(id uint64, key string) bool
	Score       func(id uint64, key []byte) uint32

	Examined int64 // result: the number of entries examined
}

// Victim is an entry that was evicted.
type Victim struct {
	ID    uint64
	Key   string
	Bytes int64 // of key and record
}

// candidate is an entry that the hand examines. Its key points into the transaction.
type candidate struct {
	id       uint64
	key      []byte
	bytes    int64
	cost     int64
	lasts    bool // it has no row in the expiry index
	revision uint64
	score    uint32
}

const (
	// A run is how many neighbours the hand compares. At most one in evictShare of them goes, more only if much is over
	// the budget at once. Smaller shares compare better and cost more; a quarter is within a point of the best.
	evictRun   = 64
	evictShare = 4

	// evictExamine bounds how many entries one transaction examines: evictExamine times as many as it may evict.
	evictExamine = 4
)

// Evict moves the hand until it has found enough entries that are worth less than their neighbours, or has examined
// enough, and removes them in one transaction. It leaves the hand where it stopped.
func (s *Store) Evict(q *Eviction) (victims []Victim, err error) {
	err = s.Update(func(tx *bolt.Tx) (err error) {
		victims, err = s.evictIn(tx, q)
		return err
	})
	return victims, err
}

func (s *Store) evictIn(tx *bolt.Tx, q *Eviction) (victims []Victim, err error) {
	w := walker{tx: tx, only: q.ID}
	w.seek(q.from)
	victims = w.choose(q)
	q.from = position{w.id, bytes.Clone(w.k)}
	return victims, s.removeVictims(tx, victims)
}

// EvictTx is a running transaction, for code that frees space in it. It must not be kept.
type EvictTx struct {
	store *Store
	tx    *bolt.Tx
}

// Used returns the usage of each id, including the transaction's changes so far.
func (f EvictTx) Used() (map[uint64]cost.Usage, error) { return f.store.used(f.tx) }

// Sweep is one step of the sweeper. It begins at *from, where the last step ended, and updates *from. Rows of entries
// that live longer by memory stay where they are, and any number of them can stand before rows that are due.
func (f EvictTx) Sweep(from *[]byte, r SweepBounds) (did Swept, err error) {
	found := false
	if *from, found = nextDue(f.tx, *from, r); found {
		did, err = f.store.sweepIn(f.tx, *from, r)
		*from = did.Next
	}
	return did, err
}

// SweepOn is EvictTx.Sweep in a transaction of its own. It starts none if there is nothing to sweep.
func (s *Store) SweepOn(from *[]byte, r SweepBounds) (did Swept, err error) {
	found := false
	err = s.View(func(tx *bolt.Tx) error {
		*from, found = nextDue(tx, *from, r)
		return nil
	})
	if err != nil || !found {
		return did, err
	}
	err = s.Update(func(tx *bolt.Tx) (err error) {
		did, err = EvictTx{s, tx}.Sweep(from, r)
		return err
	})
	return did, err
}

// maxDueRows bounds how many due rows nextDue reads to find one that can go.
const maxDueRows = 16 * sweepStep

// nextDue returns the first row from the given one on, wrapping around, that is due and whose entry does not live
// longer by memory. If it finds none, the row is where to look next time.
func nextDue(tx *bolt.Tx, from []byte, r SweepBounds) (row []byte, found bool) {
	c := tx.Bucket(format.ExpiryBucket).Cursor()
	k, _ := c.Seek(from)
	for wrapped, looked := from == nil, 0; looked < maxDueRows; looked++ {
		at, id, key, ok := format.SplitExpiryKey(k)
		switch {
		case k == nil || ok && at > r.Rows:
			if wrapped {
				return nil, false
			}
			wrapped = true
			k, _ = c.First()
			continue
		case !ok || !r.lives(id, string(key), r.Now):
			return bytes.Clone(k), true
		}
		k, _ = c.Next()
	}
	return bytes.Clone(k), false
}

// Evict is Store.Evict within the transaction.
func (f EvictTx) Evict(q *Eviction) ([]Victim, error) { return f.store.evictIn(f.tx, q) }

// removeVictims deletes entries with their expiry rows.
func (s *Store) removeVictims(tx *bolt.Tx, victims []Victim) error {
	expiry, book := tx.Bucket(format.ExpiryBucket), s.newLedger()
	var b *bolt.Bucket
	for i, v := range victims {
		key := []byte(v.Key)
		if i == 0 || v.ID != victims[i-1].ID {
			b = entriesOf(tx, v.ID)
		}
		row, rec := format.SplitRow(b.Get(key), key)
		book.remove(v.ID, key, rec)
		if err := deleteRow(expiry, row, v.ID, key, rec); err != nil {
			return err
		}
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	return book.flush(tx)
}

// choose collects victims, run by run.
func (w *walker) choose(q *Eviction) (victims []Victim) {
	over, page := q.Over, pageOf(w.tx)
	run := make([]candidate, 0, evictRun)
	most := min(q.All.Entries, evictExamine*int64(q.Step))
	pages := cost.Scattered{Page: page, RowsIn: q.All.Entries} // victims are neighbours, their rows may be anywhere
	for q.Examined = 0; w.k != nil && q.Examined < most && len(victims) < q.Step && !pages.Passes(q.Room); {
		run = run[:0]
		newest := uint64(0)
		for ; w.k != nil && len(run) < evictRun && q.Examined < most; q.Examined++ {
			u := page.Of(w.k, format.RecordIn(w.v))
			c := candidate{id: w.id, key: w.k, bytes: u.Bytes, cost: u.Cost(), lasts: u.Row == 0}
			if len(w.v) >= format.RowSize+format.HeaderSize {
				c.revision = format.ReadHeader(w.v[format.RowSize:]).Revision
			}
			newest = max(newest, c.revision)
			if c.revision <= q.Floor {
				if c.score = q.Score(c.id, c.key); c.cost > q.Limit {
					c.score, c.revision = 0, 0 // it cannot stay whatever else goes
				}
				run = append(run, c)
			}
			w.next()
		}
		slices.SortFunc(run, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.revision, b.revision))
		})
		for _, c := range run[:pick(q, run)] {
			if over.Cost <= 0 && over.Entries <= 0 {
				return victims
			}
			v := Victim{c.id, string(c.key), c.bytes}
			if q.SpareNewest && c.revision == newest || q.Spare(v.ID, v.Key) {
				continue
			}
			over.Cost -= c.cost
			over.Entries--
			victims = append(victims, v)
			pages.Among = q.Examined
			pages.Add(len(c.key), int(c.bytes)-len(c.key), c.lasts)
		}
	}
	return victims
}

// pick returns how many entries of a sorted run may go: more if a large part of everything must.
func pick(q *Eviction, run []candidate) int {
	if len(run) == 0 {
		return 0
	}
	share := max(float64(q.Over.Entries)/float64(q.All.Entries), float64(q.Over.Cost)/float64(max(q.All.Cost, 1)))
	share = min(max(1.25*share, 1.0/evictShare), 1)
	scores := make([]uint32, len(run))
	for i, v := range run {
		scores[i] = v.score
	}
	n := q.Low.Pick(scores, share)
	if q.Force {
		n = max(n, int(share*float64(len(run))), 1)
	}
	return n
}

// Amount is how much there is under a budget, or how much is over it.
type Amount struct{ Entries, Cost int64 }
