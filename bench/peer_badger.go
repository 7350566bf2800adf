package main

import (
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"
)

func init() {
	register(product{
		name: "badger", module: "github.com/dgraph-io/badger/v4", expires: true,
		about:   "default options; a block cache of MemoryBytes in the row of reads beyond memory",
		relaxed: &promise{"SyncWrites off, the default", all, "what the system wrote back by then"},
		durable: &promise{"SyncWrites", all, all},
		open:    func() Peer { return &badgerPeer{} },
	})
}

type badgerPeer struct {
	db *badger.DB
}

func (p *badgerPeer) Open(dir string, s Settings) (err error) {
	o := badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(s.Durable)
	if s.MemoryBytes != 0 && s.MemoryBytes < o.BlockCacheSize {
		o = o.WithBlockCacheSize(s.MemoryBytes)
	}
	if s.Uncompacted {
		o = o.WithNumCompactors(0)
	}
	p.db, err = badger.Open(o)
	return err
}

func (p *badgerPeer) Get(key string) (value []byte, found bool, err error) {
	err = p.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get([]byte(key))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err == nil {
			found = true
			value, err = item.ValueCopy(nil)
		}
		return err
	})
	return value, found, err
}

func (p *badgerPeer) Set(key string, value []byte, ttl time.Duration) error {
	set := func() error {
		return p.db.Update(func(tx *badger.Txn) error {
			return tx.SetEntry(badger.NewEntry([]byte(key), value).WithTTL(ttl))
		})
	}
	err := set()
	for errors.Is(err, badger.ErrConflict) {
		err = set()
	}
	return err
}

func (p *badgerPeer) Delete(key string) error {
	return p.db.Update(func(tx *badger.Txn) error { return tx.Delete([]byte(key)) })
}

// SetMany uses a WriteBatch, which is quicker than a transaction but may be split.
func (p *badgerPeer) SetMany(b *Batch, ttl time.Duration) error {
	w := p.db.NewWriteBatch()
	defer w.Cancel()
	for i, key := range b.Keys {
		if err := w.SetEntry(badger.NewEntry([]byte(key), b.Values[i]).WithTTL(ttl)); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (p *badgerPeer) Settle() error { return p.db.Sync() }
func (p *badgerPeer) Close() error  { return p.db.Close() }
