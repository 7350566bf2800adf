package memory

import (
	"math/bits"
	"runtime"
	"sync"
)

// ShardSet is a set of shards.
type ShardSet [mostShards / 64]uint64

// AddShard adds the shard of a key to a set.
func (m *Tier) AddShard(set *ShardSet, hash uint64) {
	n := m.shardIndex(hash)
	set[n/64] |= 1 << (n % 64)
}

// Lock locks shards, each once and in the order of their numbers, so that two batches cannot wait for each other.
func (m *Tier) Lock(set ShardSet) {
	lock := lockSoon
	for i, word := range set {
		for ; word != 0; word &= word - 1 {
			lock(&m.shards[i*64+bits.TrailingZeros64(word)].mu)
			lock = (*sync.RWMutex).Lock // others wait for what is locked already
		}
	}
}

func (m *Tier) Unlock(set ShardSet) {
	for i, word := range set {
		for ; word != 0; word &= word - 1 {
			m.shards[i*64+bits.TrailingZeros64(word)].mu.Unlock()
		}
	}
}

// lockSoon locks mu. Who finds it locked lets others run a few times before he queues up for it: a key that many write would
// otherwise have a queue that hands the lock on from one sleeper to the next, each of whom has to be woken first.
func lockSoon(mu *sync.RWMutex) {
	for range yieldsMost {
		if mu.TryLock() {
			return
		}
		runtime.Gosched()
	}
	mu.Lock()
}

const yieldsMost = 4
