package engine

import (
	"cmp"
	"slices"

	"github.com/keepcache/keepcache/internal/store"
)

// namesStep bounds how many names one transaction of a commit changes: they may lie all over their table.
const namesStep = 4096

// namingBytes is what a naming costs in memory besides its name while the file does not have it.
const namingBytes = 64

// bytesOfNames returns what namings come to in memory.
func bytesOfNames(names []store.NameOp) (n int64) {
	for i := range names {
		n += int64(len(names[i].Name)) + namingBytes
	}
	return n
}

// folded is what namings come to for the file.
type folded struct {
	rows  []store.NameOp // the last one of each name, sorted; none of a name that the file does not have and is not to have
	old   []uint64       // the ids that stand for nothing any more
	given uint64         // the highest id given out; 0 for none
}

// fold leaves of namings, which are in the order of their revisions, what the file needs. filed says which id it has for a name,
// and may be nil.
func fold(names []store.NameOp, filed func(name string) uint64) (f folded) {
	if len(names) == 0 {
		return f
	}
	f.rows = slices.Clone(names)
	for i := range names {
		f.given = max(f.given, names[i].ID)
		if names[i].Old != 0 {
			f.old = append(f.old, names[i].Old)
		}
	}
	slices.SortStableFunc(f.rows, func(a, b store.NameOp) int {
		switch {
		case a.Tag != b.Tag && a.Tag:
			return -1
		case a.Tag != b.Tag:
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	n := 0
	for i, row := range f.rows {
		if i+1 < len(f.rows) && row.Tag == f.rows[i+1].Tag && row.Name == f.rows[i+1].Name {
			continue
		}
		if !row.Tag && row.ID == 0 && filed != nil && filed(row.Name) == 0 {
			continue // the bucket came and went before the file heard of it
		}
		f.rows[n] = row
		n++
	}
	f.rows = f.rows[:n]
	return f
}

// transactNames brings the names into the file that are too many for one transaction, but for the last of them.
func (c *committer) transactNames(f *folded) error {
	for len(f.rows) > namesStep {
		step := f.rows[:namesStep]
		if err := c.store.Apply(step, f.given, nil, c.reached(), nil); err != nil {
			return err
		}
		c.namesCommitted(step)
		f.rows = f.rows[namesStep:]
		c.writer.naming.Add(-bytesOfNames(step)) // those who wait for room need not wait for all of them
		c.turn()
	}
	return nil
}

// namesCommitted is what follows a transaction that brought names into the file.
func (c *committer) namesCommitted(rows []store.NameOp) {
	for _, n := range rows {
		if !n.Tag {
			c.named(n.Name, n.ID)
		}
	}
}

// retire hands the ids that stand for nothing any more to the sweeper, as far as the file has anything of them.
func (c *committer) retire(old []uint64) {
	if len(old) == 0 {
		return
	}
	c.evictor.retire(old)
	if held, err := c.store.Existing(old); err == nil {
		old = held // where the file cannot be read, the sweeper finds out
	}
	c.sweeper.retire(old...)
}
