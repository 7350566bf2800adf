package main

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/tidwall/buntdb"
)

func init() {
	register(product{
		name: "buntdb", module: "github.com/tidwall/buntdb", expires: true,
		about:   "default options; keeps everything in memory, reads its whole log at open",
		relaxed: &promise{"EverySecond, the default", all, "all but the last second"},
		durable: &promise{"Always", all, all},
		open:    func() Peer { return &buntPeer{} },
	})
}

type buntPeer struct{ db *buntdb.DB }

func (p *buntPeer) Open(dir string, s Settings) (err error) {
	if p.db, err = buntdb.Open(filepath.Join(dir, "bench.bunt")); err != nil {
		return err
	}
	var c buntdb.Config
	if err := p.db.ReadConfig(&c); err != nil {
		return err
	}
	if s.Durable {
		c.SyncPolicy = buntdb.Always
	}
	c.AutoShrinkDisabled = s.Uncompacted
	return p.db.SetConfig(c)
}

func (p *buntPeer) Get(key string) (value []byte, found bool, err error) {
	err = p.db.View(func(tx *buntdb.Tx) error {
		v, err := tx.Get(key)
		if err == nil {
			value, found = []byte(v), true
		}
		return err
	})
	if errors.Is(err, buntdb.ErrNotFound) {
		err = nil
	}
	return value, found, err
}

func (p *buntPeer) Set(key string, value []byte, ttl time.Duration) error {
	return p.db.Update(func(tx *buntdb.Tx) error { return buntPut(tx, key, value, ttl) })
}

func buntPut(tx *buntdb.Tx, key string, value []byte, ttl time.Duration) error {
	_, _, err := tx.Set(key, string(value), &buntdb.SetOptions{Expires: true, TTL: ttl})
	return err
}

func (p *buntPeer) Delete(key string) error {
	err := p.db.Update(func(tx *buntdb.Tx) error {
		_, err := tx.Delete(key)
		return err
	})
	if errors.Is(err, buntdb.ErrNotFound) {
		err = nil
	}
	return err
}

func (p *buntPeer) SetMany(b *Batch, ttl time.Duration) error {
	return p.db.Update(func(tx *buntdb.Tx) error {
		for i, key := range b.Keys {
			if err := buntPut(tx, key, b.Values[i], ttl); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *buntPeer) Settle() error { return nil }
func (p *buntPeer) Close() error  { return p.db.Close() }
