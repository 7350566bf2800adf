package ground_test

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/ground"
)

// What is made on a ground from inside of a bubble does not belong to that: a goroutine may outlive it, and a channel
// be used outside.
func TestGround_Bubble(t *testing.T) {
	g := ground.New()
	defer g.Close()
	var made chan int
	var over <-chan struct{}
	synctest.Test(t, func(*testing.T) {
		g.Do(func() { made = make(chan int) })
		g.Go(func() { made <- 1 })
		over = g.Start(func() { made <- 2 })
	})
	require.Equal(t, 3, <-made+<-made)
	<-over
}

// Who waits inside of a bubble is woken from outside, and each signal wakes one.
func TestCond(t *testing.T) {
	g := ground.New()
	defer g.Close()
	var mu sync.Mutex
	c := ground.Cond{L: &mu, Ground: g}
	waiting, turn := 0, 0
	wait := func(until int) {
		mu.Lock()
		defer mu.Unlock()
		for waiting++; turn < until; {
			c.Wait()
		}
	}
	var outside sync.WaitGroup
	outside.Go(func() {
		for {
			mu.Lock()
			if waiting == 3 {
				turn = 1
				c.Broadcast()
				c.Signal() // nobody
				mu.Unlock()
				return
			}
			mu.Unlock()
		}
	})
	synctest.Test(t, func(*testing.T) {
		for range 3 {
			go wait(1)
		}
	})
	outside.Wait()
	outside.Go(func() { wait(2) })
	outside.Go(func() { wait(2) })
	mu.Lock()
	turn = 2
	c.Signal()
	c.Signal()
	mu.Unlock()
	outside.Wait()
}

// Many who have waited leave next to nothing behind.
func TestCond_Keeps(t *testing.T) {
	const waiters = 20_000
	g := ground.New()
	defer g.Close()
	var mu sync.Mutex
	c := ground.Cond{L: &mu, Ground: g}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	round := func() {
		var all sync.WaitGroup
		waiting, turn := 0, false
		for range waiters {
			all.Go(func() {
				mu.Lock()
				defer mu.Unlock()
				for waiting++; !turn; {
					c.Wait()
				}
			})
		}
		for !turn {
			mu.Lock()
			if waiting == waiters {
				turn = true
				c.Broadcast()
			}
			mu.Unlock()
			runtime.Gosched()
		}
		all.Wait()
	}
	round()
	with := heap()
	mu.Lock()
	c = ground.Cond{L: &mu, Ground: g}
	mu.Unlock()
	require.Less(t, with-heap(), int64(waiters*32), "bytes that the channels took")
}

// A ground that is closed, and none at all, work where they are.
func TestGround_Closed(t *testing.T) {
	g := ground.New()
	g.Close()
	g.Close()
	for _, g := range []*ground.Ground{g, nil} {
		ran := false
		g.Do(func() { ran = true })
		require.True(t, ran)
		<-g.Start(func() {})
		g.Close()
	}
}
