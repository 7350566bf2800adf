package memory

import (
	"math/bits"
	"runtime"
	"sync"
)

// ShardSet is a set of shards.
type ShardSet [maxShards / 64]uint64

// AddShard adds the shard of a hash to a set.
func (m *Tier) AddShard(set *ShardSet, hash uint64) {
	n := m.shardIndex(hash)
	set[n/64] |= 1 << (n % 64)
}

// Lock locks the shards of a set in the order of their indexes, so two batches cannot deadlock.
func (m *Tier) Lock(set ShardSet) {
	lock := lockSoon
	for i, word := range set {
		for ; word != 0; word &= word - 1 {
			lock(&m.shards[i*64+bits.TrailingZeros64(word)].mu)
			lock = (*sync.RWMutex).Lock // others may wait for the locked shards already, so do not yield any more
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

// lockSoon locks mu. If mu is held, it yields a few times before it queues up. On a hot key a queue of sleeping writers
// would otherwise form, and each of them has to wake up before the lock can move on.
func lockSoon(mu *sync.RWMutex) {
	for range maxYields {
		if mu.TryLock() {
			return
		}
		runtime.Gosched()
	}
	mu.Lock()
}

const maxYields = 4
