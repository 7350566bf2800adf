package keepcache

import (
	"bytes"
	"cmp"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/recency"
)

// eviction says what store.evict is to do.
type eviction struct {
	id          uint64 // of the bucket, 0 for the whole file
	from        placed // where the hand stands
	all, over   amount // what there is, and how much of it is to go
	limit       int64  // cost that there may be
	room        int64  // bytes of memory that the pages may take of what is evicted
	floor       uint64 // entries with a later revision are spared
	spareNewest bool   // so is the last one written of each run
	anyway      bool   // whoever is least of its run goes, even if all of it was used much
	low         *recency.Quantile
	spare       func(id uint64, key string) bool
	score       func(id uint64, key []byte) uint32

	looked int64 // result: how many entries were looked at
}

// victim is an entry that was evicted.
type victim struct {
	id    uint64
	key   string
	bytes int64 // of key and record
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

	// evictStep bounds how many entries one transaction evicts: as many as a commit puts and some more, so that
	// one is enough. Each has its price, and small ones halve the throughput of writers. evictLook bounds how
	// many it looks at.
	evictStep = pressedTimes * commitEntries
	evictLook = 4 * evictStep
)

// evict walks the hand on until enough entries are found that are worth less than their neighbours, or until
// it has been everywhere or far enough, and removes them in one transaction. q.from is where the hand stands then.
func (s *store) evict(q *eviction) (victims []victim, err error) {
	err = s.update(func(tx *bolt.Tx) (err error) {
		victims, err = s.evictIn(tx, q)
		return err
	})
	return victims, err
}

func (s *store) evictIn(tx *bolt.Tx, q *eviction) (victims []victim, err error) {
	w := walker{tx: tx, only: q.id}
	w.seek(q.from)
	victims = w.choose(q)
	q.from = placed{w.id, bytes.Clone(w.k)}
	return victims, s.removeVictims(tx, victims)
}

// freeing is a transaction under way, to those who free room in it. It is not to be kept.
type freeing struct {
	store *store
	tx    *bolt.Tx
}

// used returns the usage of each id as the transaction has it so far.
func (f freeing) used() (map[uint64]usage, error) { return f.store.used(f.tx) }

// sweep is one step of the sweeper. It goes on where the last one ended, at *from, because
// rows of entries that live, as memory knows, stay where they are, and any number of them can stand before others.
func (f freeing) sweep(from *[]byte, r reach) (did swept, err error) {
	found := false
	if *from, found = nextDue(f.tx, *from, r); found {
		did, err = f.store.sweepIn(f.tx, *from, r)
		*from = did.next
	}
	return did, err
}

// sweepOn is that sweep in a transaction of its own, if there is anything for it to do.
func (s *store) sweepOn(from *[]byte, r reach) (did swept, err error) {
	found := false
	err = s.view(func(tx *bolt.Tx) error {
		*from, found = nextDue(tx, *from, r)
		return nil
	})
	if err != nil || !found {
		return did, err
	}
	err = s.update(func(tx *bolt.Tx) (err error) {
		did, err = freeing{s, tx}.sweep(from, r)
		return err
	})
	return did, err
}

// dueLook bounds how many rows that are due an eviction looks at for one that can go.
const dueLook = 16 * sweepStep

// nextDue returns the first row from the given one on, and round, that is within reach and whose entry does not live
// as memory knows. If none is found it is where to look next time.
func nextDue(tx *bolt.Tx, from []byte, r reach) (row []byte, found bool) {
	c := tx.Bucket(format.ExpiryBucket).Cursor()
	k, _ := c.Seek(from)
	for wrapped, looked := from == nil, 0; looked < dueLook; looked++ {
		at, id, key, ok := format.SplitExpiryKey(k)
		switch {
		case k == nil || ok && at > r.rows:
			if wrapped {
				return nil, false
			}
			wrapped = true
			k, _ = c.First()
			continue
		case !ok || !r.lives(id, string(key), r.now):
			return bytes.Clone(k), true
		}
		k, _ = c.Next()
	}
	return bytes.Clone(k), false
}

// evict is store.evict within the transaction.
func (f freeing) evict(q *eviction) ([]victim, error) { return f.store.evictIn(f.tx, q) }

// removeVictims removes entries with their expiry rows.
func (s *store) removeVictims(tx *bolt.Tx, victims []victim) error {
	expiry, book := tx.Bucket(format.ExpiryBucket), s.book()
	var b *bolt.Bucket
	for i, v := range victims {
		key := []byte(v.key)
		if i == 0 || v.id != victims[i-1].id {
			b = entriesOf(tx, v.id)
		}
		row, rec := format.SplitRow(b.Get(key), key)
		book.remove(v.id, key, rec)
		if err := dropRow(expiry, row, v.id, key, rec); err != nil {
			return err
		}
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	return book.enter(tx)
}

// choose collects victims, run by run.
func (w *walker) choose(q *eviction) (victims []victim) {
	over, page := q.over, pageOf(w.tx)
	run := make([]candidate, 0, evictRun)
	most := min(q.all.entries, evictLook)
	pages := scattered{page: page, rowsIn: q.all.entries} // victims are neighbours, their rows lie anywhere
	for q.looked = 0; w.k != nil && q.looked < most && len(victims) < evictStep && !pages.passes(q.room); {
		run = run[:0]
		newest := uint64(0)
		for ; w.k != nil && len(run) < evictRun && q.looked < most; q.looked++ {
			u := page.of(w.k, format.RecordIn(w.v))
			c := candidate{id: w.id, key: w.k, bytes: u.bytes, cost: u.cost(), lasts: u.row == 0}
			if len(w.v) >= format.RowSize+format.HeaderSize {
				c.revision = format.ReadHeader(w.v[format.RowSize:]).Revision
			}
			newest = max(newest, c.revision)
			if c.revision <= q.floor {
				if c.score = q.score(c.id, c.key); c.cost > q.limit {
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
			if over.cost <= 0 && over.entries <= 0 {
				return victims
			}
			v := victim{c.id, string(c.key), c.bytes}
			if q.spareNewest && c.revision == newest || q.spare(v.id, v.key) {
				continue
			}
			over.cost -= c.cost
			over.entries--
			victims = append(victims, v)
			pages.among = q.looked
			pages.add(len(c.key), int(c.bytes)-len(c.key), c.lasts)
		}
	}
	return victims
}

// pick returns how many of a run, which is sorted, may go: more if a good part of everything must.
func pick(q *eviction, run []candidate) int {
	if len(run) == 0 {
		return 0
	}
	share := max(float64(q.over.entries)/float64(q.all.entries), float64(q.over.cost)/float64(max(q.all.cost, 1)))
	share = min(max(1.25*share, 1.0/evictPart), 1)
	scores := make([]uint32, len(run))
	for i, v := range run {
		scores[i] = v.score
	}
	n := q.low.Pick(scores, share)
	if q.anyway {
		n = max(n, int(share*float64(len(run))), 1)
	}
	return n
}
