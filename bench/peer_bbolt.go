package main

import (
	"encoding/binary"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

func init() {
	relaxed := &promise{"NoSync", all, "nothing certain: the file may be damaged"}
	durable := &promise{"the default", all, all}
	register(product{
		name: bolt, module: "go.etcd.io/bbolt", relaxed: relaxed, durable: durable,
		about: "default options; entries and an expiry index in two buckets, one Update a set",
		open:  func() Peer { return &bboltPeer{} },
	})
	register(product{
		name: boltTuned, module: "go.etcd.io/bbolt", relaxed: relaxed, durable: durable,
		about: "the same with NoStatistics, NoFreelistSync and FreelistType map",
		open: func() Peer {
			return &bboltPeer{options: bbolt.Options{NoStatistics: true, NoFreelistSync: true,
				FreelistType: bbolt.FreelistMapType}}
		},
	})
}

// bboltPeer is what a careful user of plain bbolt writes: each entry with its deadline before the value, and
// the row by which a sweeper would find it.
type bboltPeer struct {
	options bbolt.Options
	db      *bbolt.DB
}

var entriesName, expiryName = []byte("entries"), []byte("expiry")

func (p *bboltPeer) Open(dir string, s Settings) (err error) {
	o := *bbolt.DefaultOptions
	o.NoStatistics, o.NoFreelistSync = p.options.NoStatistics, p.options.NoFreelistSync
	if p.options.FreelistType != "" {
		o.FreelistType = p.options.FreelistType
	}
	o.NoSync = !s.Durable
	p.db, err = bbolt.Open(filepath.Join(dir, "bench.db"), 0o600, &o)
	if err != nil {
		return err
	}
	return p.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(entriesName); err != nil {
			return err
		}
		_, err := tx.CreateBucketIfNotExists(expiryName)
		return err
	})
}

func (p *bboltPeer) Get(key string) (value []byte, found bool, err error) {
	err = p.db.View(func(tx *bbolt.Tx) error {
		value, found = live(tx.Bucket(entriesName).Get([]byte(key)))
		return nil
	})
	return value, found, err
}

// withDeadline returns the deadline (8 bytes) and the value, for peers that have no lifetimes of their own.
func withDeadline(value []byte, ttl time.Duration) []byte {
	stored := make([]byte, 0, 8+len(value))
	stored = binary.BigEndian.AppendUint64(stored, uint64(time.Now().Add(ttl).UnixMilli()))
	return append(stored, value...)
}

// live returns a copy of the value behind a deadline, unless that has passed.
func live(stored []byte) (value []byte, found bool) {
	if stored == nil || int64(binary.BigEndian.Uint64(stored)) <= time.Now().UnixMilli() {
		return nil, false
	}
	return append(make([]byte, 0, len(stored)-8), stored[8:]...), true
}

func (p *bboltPeer) Set(key string, value []byte, ttl time.Duration) error {
	return p.db.Update(func(tx *bbolt.Tx) error { return boltPut(tx, key, value, ttl) })
}

func boltPut(tx *bbolt.Tx, key string, value []byte, ttl time.Duration) error {
	if err := boltUnlink(tx, key); err != nil {
		return err
	}
	stored := withDeadline(value, ttl)
	if err := tx.Bucket(expiryName).Put(append(slices.Clone(stored[:8]), key...), nil); err != nil {
		return err
	}
	return tx.Bucket(entriesName).Put([]byte(key), stored)
}

// boltUnlink removes the expiry row of the entry that is there.
func boltUnlink(tx *bbolt.Tx, key string) error {
	old := tx.Bucket(entriesName).Get([]byte(key))
	if old == nil {
		return nil
	}
	return tx.Bucket(expiryName).Delete(append(slices.Clone(old[:8]), key...))
}

func (p *bboltPeer) Delete(key string) error {
	return p.db.Update(func(tx *bbolt.Tx) error {
		if err := boltUnlink(tx, key); err != nil {
			return err
		}
		return tx.Bucket(entriesName).Delete([]byte(key))
	})
}

func (p *bboltPeer) SetMany(b *Batch, ttl time.Duration) error {
	return p.db.Update(func(tx *bbolt.Tx) error {
		for i, key := range b.Keys {
			if err := boltPut(tx, key, b.Values[i], ttl); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *bboltPeer) Settle() error { return p.db.Sync() }
func (p *bboltPeer) Close() error  { return p.db.Close() }
