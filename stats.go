package keepcache

import "sync/atomic"

// Stats is a snapshot of a cache. Counters start with Open.
type Stats struct {
	Hits    uint64 // Get and GetBytes that found the key
	Misses  uint64 // Get and GetBytes that found it absent or expired
	Sets    uint64 // values written: Set, SetBytes, and Add where it succeeded
	Deletes uint64 // entries removed by Delete
	Damaged uint64 // damaged entries met by reads, each time they were met

	FileBytes int64 // size of the file in bytes
	Entries   int64 // entries in all buckets, expired ones that the sweeper has not reached yet included
	Bytes     int64 // what their keys and records amount to

	Buckets map[string]BucketStats // by name, of every bucket that exists

	Commit CommitStats
	Sweep  SweepStats
}

// BucketStats are the part of Stats that speaks of one bucket.
type BucketStats struct {
	Entries int64 // entries, expired ones that the sweeper has not reached yet included
	Bytes   int64 // what their keys and records amount to
}

// counters are what the operations count.
type counters struct {
	hits, misses, sets, deletes, damaged atomic.Uint64
}

func (c *counters) get(hit bool) {
	if hit {
		c.hits.Add(1)
	} else {
		c.misses.Add(1)
	}
}

// Stats returns a snapshot of what the cache did since Open and how it stands. It is cheap enough to be
// called every second. After Close it returns the counters alone.
func (db *DB) Stats() Stats {
	s := Stats{
		Hits:    db.counts.hits.Load(),
		Misses:  db.counts.misses.Load(),
		Sets:    db.counts.sets.Load(),
		Deletes: db.counts.deletes.Load(),
		Damaged: db.counts.damaged.Load(),
		Sweep:   db.sweeper.snapshot(),
	}
	if db.commit != nil {
		s.Commit = db.commit.snapshot()
	}
	file, used, err := db.store.size()
	if err != nil {
		return s
	}
	s.FileBytes = file
	s.Buckets = make(map[string]BucketStats)
	db.mu.RLock()
	defer db.mu.RUnlock()
	for name, ns := range db.buckets {
		if id := ns.id.Load(); id != 0 {
			u := used[id]
			s.Buckets[name] = BucketStats{Entries: u.entries, Bytes: u.bytes}
			s.Entries += u.entries
			s.Bytes += u.bytes
		}
	}
	return s
}
