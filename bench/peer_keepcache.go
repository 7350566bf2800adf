package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/keepcache/keepcache"
)

func init() {
	register(product{
		name: us, module: "github.com/keepcache/keepcache", expires: true,
		about:   "SetBytes and GetBytes; MemoryBytes as the row says; MaxBytes is raised where the entries would not fit",
		relaxed: &promise{"SyncPeriodic, the default", all, "all but the last 100 ms"},
		durable: &promise{"SyncAlways", all, all},
		open:    func() Peer { return &keepcachePeer{} },
	})
}

// budget is the default of MaxBytes. It is more only where that many entries would not fit: nothing is to be evicted.
const budget = 1 << 30

type keepcachePeer struct {
	db     *keepcache.DB
	bucket *keepcache.Bucket
}

func (p *keepcachePeer) Open(dir string, s Settings) (err error) {
	o := &keepcache.Options{MemoryBytes: s.MemoryBytes, MaxBytes: max(budget, int64(s.Entries)*1024)}
	if s.Durable {
		o.Sync = keepcache.SyncAlways
	}
	if s.Uncompacted {
		o.CompactBytes = -1
	}
	if s.Hoard {
		o.CommitInterval, o.CommitBytes, o.JournalBytes = time.Hour, 1<<40, 1<<30
	}
	p.db, err = keepcache.Open(filepath.Join(dir, "bench.cache"), o)
	if err == nil {
		p.bucket = p.db.Bucket("bench")
	}
	return err
}

func (p *keepcachePeer) Get(key string) ([]byte, bool, error) { return p.bucket.GetBytes(key) }

func (p *keepcachePeer) Set(key string, value []byte, ttl time.Duration) error {
	return p.bucket.SetBytes(key, value, ttl)
}

func (p *keepcachePeer) Delete(key string) error {
	_, err := p.bucket.Delete(key)
	return err
}

func (p *keepcachePeer) SetMany(b *Batch, ttl time.Duration) error {
	return p.bucket.SetMany(b.Map, ttl)
}

// Settle sweeps, because a sweep begins with a commit.
func (p *keepcachePeer) Settle() error {
	_, err := p.db.Sweep(context.Background())
	return err
}

func (p *keepcachePeer) Close() error { return p.db.Close() }

func (p *keepcachePeer) Swept() uint64 { return p.db.Stats().Sweep.Removed }

func (p *keepcachePeer) Counts() map[string]float64 {
	s := p.db.Stats()
	return map[string]float64{
		"hits":           float64(s.Hits),
		"file hits":      float64(s.FileHits),
		"commits":        float64(s.Commit.Commits),
		"commit entries": float64(s.Commit.Entries),
		"commit s":       s.Commit.Time.Seconds(),
		"flushes":        float64(s.Journal.Flushes),
		"flush s":        s.Journal.FlushTime.Seconds(),
	}
}

// hoarded returns how many bytes of the journal are in use.
func (p *keepcachePeer) hoarded() int64 { return p.db.Stats().Journal.UsedBytes }

func (p *keepcachePeer) SetValue(key string, value any) error { return p.bucket.Set(key, value, ttl) }
