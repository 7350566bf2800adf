package main

import (
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

func init() {
	register(product{
		name: "pebble", module: "github.com/cockroachdb/pebble/v2",
		about:   "block cache of MemoryBytes, Bloom filters, newest format; a deadline before the value and no expiry index, so nothing removes what expired",
		relaxed: &promise{"NoSync", "all but what its own buffer held", "what the system wrote back by then"},
		durable: &promise{"Sync", all, all},
		open:    func() Peer { return &pebblePeer{} },
	})
}

type pebblePeer struct {
	db   *pebble.DB
	sync *pebble.WriteOptions
}

// silent is a pebble.Logger.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	pebble.DefaultLogger.Fatalf(format, args...)
}

func (p *pebblePeer) Open(dir string, s Settings) (err error) {
	o := &pebble.Options{CacheSize: s.MemoryBytes, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if s.Uncompacted {
		o.DisableAutomaticCompactions = true
		o.L0StopWritesThreshold = 1 << 20 // or it would wait for compactions for ever
	}
	p.sync = pebble.NoSync
	if s.Durable {
		p.sync = pebble.Sync
	}
	p.db, err = pebble.Open(dir, o)
	return err
}

func (p *pebblePeer) Get(key string) (value []byte, found bool, err error) {
	stored, closer, err := p.db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	value, found = live(stored)
	return value, found, closer.Close()
}

func (p *pebblePeer) Set(key string, value []byte, ttl time.Duration) error {
	return p.db.Set([]byte(key), withDeadline(value, ttl), p.sync)
}

func (p *pebblePeer) Delete(key string) error { return p.db.Delete([]byte(key), p.sync) }

func (p *pebblePeer) SetMany(b *Batch, ttl time.Duration) error {
	batch := p.db.NewBatch()
	defer batch.Close()
	for i, key := range b.Keys {
		if err := batch.Set([]byte(key), withDeadline(b.Values[i], ttl), nil); err != nil {
			return err
		}
	}
	return batch.Commit(p.sync)
}

func (p *pebblePeer) Settle() error { return p.db.Flush() }
func (p *pebblePeer) Close() error  { return p.db.Close() }
