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

// Eviction says what Store.Evict is to do.
type Eviction struct {
	ID          uint64 // of the bucket, 0 for the whole file
	from        placed // where the hand stands
	All, Over   Amount // what there is, and how much of it is to go
	Limit       int64  // cost that there may be
	Step        int    // entries that may go in one transaction
	Room        int64  // bytes of memory that the pages may take of what is evicted
	Floor       uint64 // entries with a later revision are spared
	SpareNewest bool   // so is the last one written of each run
	Anyway      bool   // whoever is least of its run goes, even if all of it was used much
	Low         *recency.Quantile
	Spare       func(id uint64, key string) bool
	Score       func(id uint64, key []byte) uint32

	Looked int64 // result: how many entries were looked at
}

// Victim is an entry that was evicted.
type Victim struct {
	ID    uint64
	Key   string
	Bytes int64 // of key and record
}

// candidate is an entry that the hand looks at. Its key points into the transaction.
type candidate struct {
	id       uint64
	key      []byte
	bytes    int64
	cost     int64
	lasts    bool // it has no row in the index of lifetimes
	revision uint64
	score    uint32
}

const (
	// A run is how many neighbours the hand compares, and of these at most one in evictPart goes, more only where
	// much is over at once. Smaller parts compare better and cost more; a quarter is within a point of the best.
	evictRun  = 64
	evictPart = 4

	// evictLook bounds how many entries one transaction looks at: so many times as many as it may evict.
	evictLook = 4
)

// Evict walks the hand on until enough entries are found that are worth less than their neighbours, or until
// it has been everywhere or far enough, and removes them in one transaction. q.from is where the hand stands then.
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
	q.from = placed{w.id, bytes.Clone(w.k)}
	return victims, s.removeVictims(tx, victims)
}

// FreeTx is a transaction under way, to those who free room in it. It is not to be kept.
type FreeTx struct {
	store *Store
	tx    *bolt.Tx
}

// Used returns the usage of each id as the transaction has it so far.
func (f FreeTx) Used() (map[uint64]cost.Usage, error) { return f.store.used(f.tx) }

// Sweep is one step of the sweeper. It goes on where the last one ended, at *from, because
// rows of entries that live, as memory knows, stay where they are, and any number of them can stand before others.
func (f FreeTx) Sweep(from *[]byte, r SweepReach) (did Swept, err error) {
	found := false
	if *from, found = nextDue(f.tx, *from, r); found {
		did, err = f.store.sweepIn(f.tx, *from, r)
		*from = did.Next
	}
	return did, err
}

// SweepOn is that sweep in a transaction of its own, if there is anything for it to do.
func (s *Store) SweepOn(from *[]byte, r SweepReach) (did Swept, err error) {
	found := false
	err = s.View(func(tx *bolt.Tx) error {
		*from, found = nextDue(tx, *from, r)
		return nil
	})
	if err != nil || !found {
		return did, err
	}
	err = s.Update(func(tx *bolt.Tx) (err error) {
		did, err = FreeTx{s, tx}.Sweep(from, r)
		return err
	})
	return did, err
}

// dueLook bounds how many rows that are due an eviction looks at for one that can go.
const dueLook = 16 * sweepStep

// nextDue returns the first row from the given one on, and round, that is within reach and whose entry does not live
// as memory knows. If none is found it is where to look next time.
func nextDue(tx *bolt.Tx, from []byte, r SweepReach) (row []byte, found bool) {
	c := tx.Bucket(format.ExpiryBucket).Cursor()
	k, _ := c.Seek(from)
	for wrapped, looked := from == nil, 0; looked < dueLook; looked++ {
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
func (f FreeTx) Evict(q *Eviction) ([]Victim, error) { return f.store.evictIn(f.tx, q) }

// removeVictims removes entries with their expiry rows.
func (s *Store) removeVictims(tx *bolt.Tx, victims []Victim) error {
	expiry, book := tx.Bucket(format.ExpiryBucket), s.book()
	var b *bolt.Bucket
	for i, v := range victims {
		key := []byte(v.Key)
		if i == 0 || v.ID != victims[i-1].ID {
			b = entriesOf(tx, v.ID)
		}
		row, rec := format.SplitRow(b.Get(key), key)
		book.remove(v.ID, key, rec)
		if err := dropRow(expiry, row, v.ID, key, rec); err != nil {
			return err
		}
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	return book.enter(tx)
}

// choose collects victims, run by run.
func (w *walker) choose(q *Eviction) (victims []Victim) {
	over, page := q.Over, pageOf(w.tx)
	run := make([]candidate, 0, evictRun)
	most := min(q.All.Entries, evictLook*int64(q.Step))
	pages := cost.Scattered{Page: page, RowsIn: q.All.Entries} // victims are neighbours, their rows lie anywhere
	for q.Looked = 0; w.k != nil && q.Looked < most && len(victims) < q.Step && !pages.Passes(q.Room); {
		run = run[:0]
		newest := uint64(0)
		for ; w.k != nil && len(run) < evictRun && q.Looked < most; q.Looked++ {
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
			pages.Among = q.Looked
			pages.Add(len(c.key), int(c.bytes)-len(c.key), c.lasts)
		}
	}
	return victims
}

// pick returns how many of a run, which is sorted, may go: more if a good part of everything must.
func pick(q *Eviction, run []candidate) int {
	if len(run) == 0 {
		return 0
	}
	share := max(float64(q.Over.Entries)/float64(q.All.Entries), float64(q.Over.Cost)/float64(max(q.All.Cost, 1)))
	share = min(max(1.25*share, 1.0/evictPart), 1)
	scores := make([]uint32, len(run))
	for i, v := range run {
		scores[i] = v.score
	}
	n := q.Low.Pick(scores, share)
	if q.Anyway {
		n = max(n, int(share*float64(len(run))), 1)
	}
	return n
}

// Amount is how much there is under a budget, or how much too much.
type Amount struct{ Entries, Cost int64 }
