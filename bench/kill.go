package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A process that is to be killed tells its parent on its standard output what it has been acknowledged: the
// number of an entry, in 8 bytes, after the set of it returned. The word ready asks to be killed at once.
const ready = ^uint64(0)

func acknowledge(n uint64) error {
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], n)
	_, err := os.Stdout.Write(word[:]) // one write of so few bytes is not torn
	return err
}

// waitForKill says ready and waits for the end.
func waitForKill() error {
	if err := acknowledge(ready); err != nil {
		return err
	}
	time.Sleep(time.Minute)
	return errors.New("was not killed")
}

// collect reads acknowledgements until there are most of them, the process is ready, or the time is over.
// Then it calls kill, and reads what the process had still said.
func collect(from io.Reader, most int, patience time.Duration, kill func() error) (acks []uint64, err error) {
	var once sync.Once
	end := func() { once.Do(func() { err = kill() }) }
	timer := time.AfterFunc(patience, end)
	defer timer.Stop()
	in := bufio.NewReader(from)
	var word [8]byte
	for {
		if _, readErr := io.ReadFull(in, word[:]); readErr != nil {
			end()
			return acks, err
		}
		n := binary.LittleEndian.Uint64(word[:])
		if n != ready {
			acks = append(acks, n)
		}
		if n == ready || len(acks) >= most {
			end()
		}
	}
}

// acksPath is where the parent leaves the acknowledgements for the next phase.
func (j *job) acksPath() string { return j.Dir + ".acks" }

func saveAcks(path string, acks []uint64) error {
	out := make([]byte, 0, 8*len(acks))
	for _, n := range acks {
		out = binary.LittleEndian.AppendUint64(out, n)
	}
	return os.WriteFile(path, out, 0o600)
}

func loadAcks(path string) (acks []uint64, err error) {
	in, err := os.ReadFile(path)
	for ; len(in) >= 8; in = in[8:] {
		acks = append(acks, binary.LittleEndian.Uint64(in))
	}
	return acks, err
}

// runAcknowledge sets new entries, by some goroutines, and acknowledges them, until it is killed.
func runAcknowledge(c *child) error {
	const goroutines = 4
	c.entries(0)
	return c.withPeer(Settings{MemoryBytes: memory, Entries: 2 * c.Acks}, func(p Peer) error {
		bufs := c.buffers(goroutines)
		var next atomic.Int64
		_, err := measure(load{goroutines: goroutines, duration: killPatience * 2, op: func(g, _ int) (class, error) {
			n := int(next.Add(1)) - 1
			if err := p.Set(keyOf(n), c.data.value(bufs[g], n, 0), ttl); err != nil {
				return write, err
			}
			return write, acknowledge(uint64(n))
		}})
		if err == nil {
			err = errors.New("was not killed")
		}
		return err
	})
}

// killPatience is how long a process that is to be killed has to acknowledge enough.
const killPatience = 5 * time.Second

// runCount looks for each acknowledged entry.
func runCount(c *child) error {
	acks, err := loadAcks(c.acksPath())
	if err != nil {
		return err
	}
	c.entries(0)
	lost := 0
	err = c.withPeer(Settings{MemoryBytes: memory, Entries: 2 * c.Acks}, func(p Peer) error {
		for _, n := range acks {
			value, found, err := p.Get(keyOf(int(n)))
			if err != nil {
				return err
			}
			if !found {
				lost++
				continue
			}
			if _, err := c.data.check(value, int(n)); err != nil {
				return fmt.Errorf("after the kill: %w", err)
			}
		}
		return nil
	})
	m := c.row(killRow(c.Durable))
	m["acknowledged"], m["lost"] = float64(len(acks)), float64(lost)
	return err
}

func killRow(durable bool) string {
	if durable {
		return "kill-durable"
	}
	return "kill-relaxed"
}
