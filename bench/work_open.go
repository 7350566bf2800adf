package main

import (
	"errors"
	"fmt"
	"time"
)

// The rows on Open have four phases in one directory: many entries are written and the peer is closed; it is
// opened; as many bytes as keepcache's journal holds are written and the process is killed; it is opened.

func runBuild(c *child) error {
	c.entries(0)
	return c.withPeer(Settings{MemoryBytes: memory, Entries: c.Many}, func(p Peer) error {
		return c.data.fill(p, 0, c.Many, hour)
	})
}

func runOpenClean(c *child) error {
	bytes, err := diskBytes(c.Dir)
	if err != nil {
		return err
	}
	c.row("open-clean")["file bytes"] = bytes
	return c.timeOpen("open-clean", 0)
}

func runOpenKilled(c *child) error {
	least := 1
	if c.product.relaxed.kill != all {
		least = 0 // its own buffer may have held all that was written
	}
	return c.timeOpen("open-killed", least)
}

// timeOpen opens the peer, and proves some entries. At least least entries must have been overwritten.
func (c *child) timeOpen(row string, least int) error {
	c.entries(0)
	p := c.product.open()
	start := time.Now()
	if err := p.Open(c.Dir, Settings{MemoryBytes: memory, Entries: c.Many}); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	m := c.row(row)
	m["open ns"] = float64(time.Since(start))
	if _, found, err := p.Get(keyOf(0)); err != nil || !found {
		return errors.Join(fmt.Errorf("the first entry is absent: %w", err), p.Close())
	}
	m["open and get ns"] = float64(time.Since(start))

	overwritten := 0
	for _, i := range shuffled(dirtySeed, 0, c.Many)[:min(1000, c.Many)] {
		value, found, err := p.Get(keyOf(int(i)))
		if err != nil || !found {
			return errors.Join(fmt.Errorf("entry %d is absent: %w", i, err), p.Close())
		}
		version, err := c.data.check(value, int(i))
		if err != nil {
			return errors.Join(err, p.Close())
		}
		overwritten += int(version)
	}
	m["overwritten"] = float64(overwritten)
	if overwritten < least {
		return errors.Join(errors.New("nothing of what was written before the kill is there"), p.Close())
	}
	return p.Close()
}

// dirtySeed is that of the order in which runDirty overwrites entries.
const dirtySeed = 99

// hoarder is a Peer that tells how much it has kept out of its main file.
type hoarder interface{ hoarded() int64 }

// runDirty overwrites entries until the journal is nearly full, or as many bytes are written, and waits to be
// killed.
func runDirty(c *child) error {
	const batch = 100
	c.entries(0)
	return c.withPeer(Settings{MemoryBytes: 16 * memory, Entries: c.Many, Hoard: true}, func(p Peer) error {
		order := shuffled(dirtySeed, 0, c.Many)
		written, full := int64(0), c.Journal*15/16
		for at := 0; written < c.Journal; at += batch {
			part := order[at%len(order):]
			part = part[:min(batch, len(part))]
			if err := p.SetMany(c.data.batch(part, 1), ttl); err != nil {
				return err
			}
			written += int64(c.data.logical(len(part)))
			if h, ok := p.(hoarder); ok && h.hoarded() >= full {
				break
			}
		}
		return waitForKill()
	})
}
