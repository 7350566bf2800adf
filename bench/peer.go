package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Peer is one store under test, opened in a directory of its own. A new one is a small file: the methods
// below, and a call of register. All methods but Open and Close are called from many goroutines.
type Peer interface {
	Open(dir string, s Settings) error

	// Get returns a copy of the value that is the caller's own, and false if the key is absent or expired.
	Get(key string) (value []byte, found bool, err error)

	// Set stores a copy of value, which the caller uses again. In a durable mode it returns when the disk has it.
	Set(key string, value []byte, ttl time.Duration) error

	Delete(key string) error

	// SetMany stores a batch, all or nothing where the peer can do that, in the form that suits it best.
	SetMany(b *Batch, ttl time.Duration) error

	// Settle brings what was written to where it stays: it finishes the work that writes left behind, as far
	// as the peer has a call for it.
	Settle() error

	Close() error
}

// Settings are what a workload asks of a peer.
type Settings struct {
	Durable     bool  // a write returns when the disk has it
	MemoryBytes int64 // for the peer's own cache, where it has a size
	Entries     int   // about how many there will be
	Hoard       bool  // keep what is written out of the main file as long as possible, where there is a choice
	Uncompacted bool  // compact nothing, where there is a choice
}

// Batch is a batch in the two forms that the peers take.
type Batch struct {
	Keys   []string
	Values [][]byte
	Map    map[string]any // the same
}

func newBatch(keys []string, values [][]byte) *Batch {
	b := &Batch{Keys: keys, Values: values, Map: make(map[string]any, len(keys))}
	for i, key := range keys {
		b.Map[key] = values[i]
	}
	return b
}

// Counter is a Peer that tells what it did since it was opened, for the record.
type Counter interface{ Counts() map[string]float64 }

// Sweeper is a Peer that tells how many expired entries it has removed so far.
type Sweeper interface{ Swept() uint64 }

// promise is what a mode of a product says that it keeps. What survives a kill is put to the test (see
// kill.go), what survives a power cut is what the documentation says.
type promise struct {
	setting string // how the mode is chosen
	kill    string // what survives kill -9
	power   string // what survives a power cut
}

// product describes a peer.
type product struct {
	name    string
	module  string // whose version is reported
	about   string // options that are not the default, and what the results depend on
	memory  bool   // keeps nothing on disk
	relaxed *promise
	durable *promise // nil if there is no such mode
	expires bool     // removes expired entries by itself
	open    func() Peer
}

const (
	all     = "all"
	nothing = "nothing"
)

var products []product

func register(p product) { products = append(products, p) }

// order is the one in which the results name the peers; others follow by name.
var order = []string{us, bolt, boltTuned, "badger", "pebble", "buntdb", "sqlite", "otter", "go-cache"}

// Names that the targets speak of.
const (
	us        = "keepcache"
	bolt      = "bbolt"
	boltTuned = "bbolt tuned"
	limit     = "disk limit"
)

// sortedProducts returns all products in the order of the results.
func sortedProducts() []product {
	sorted := slices.Clone(products)
	rank := func(p product) int {
		if i := slices.Index(order, p.name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(sorted, func(a, b product) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return sorted
}

func findProduct(name string) (product, error) {
	for _, p := range products {
		if p.name == name {
			return p, nil
		}
	}
	return product{}, fmt.Errorf("no peer is called %q", name)
}
