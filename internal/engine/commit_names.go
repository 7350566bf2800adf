package engine

import (
	"cmp"
	"slices"

	"github.com/keepcache/keepcache/internal/store"
)

// namesStep bounds how many names one transaction of a commit changes: they may be spread all over their table.
const namesStep = 4096

// nameOpBytes is the size of a name operation in memory, without the name.
const nameOpBytes = 64

// nameOpsBytes returns the size of name operations in memory.
func nameOpsBytes(names []store.NameOp) (n int64) {
	for i := range names {
		n += int64(len(names[i].Name)) + nameOpBytes
	}
	return n
}

// folded is the net effect of name operations on the file.
type folded struct {
	rows    []store.NameOp // the last operation of each name, sorted; no deletions of names that the file lacks
	retired []uint64       // ids without a name now
	lastID  uint64         // the highest id that was assigned; 0 for none
}

// fold reduces name operations, which must be in the order of their revisions, to what the file needs. fileIDOf returns
// the id that the file has for a name. It may be nil.
func fold(names []store.NameOp, fileIDOf func(name string) uint64) (f folded) {
	if len(names) == 0 {
		return f
	}
	f.rows = slices.Clone(names)
	for i := range names {
		f.lastID = max(f.lastID, names[i].ID)
		if names[i].Old != 0 {
			f.retired = append(f.retired, names[i].Old)
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
		if !row.Tag && row.ID == 0 && fileIDOf != nil && fileIDOf(row.Name) == 0 {
			continue // the bucket was created and dropped before the file had its name
		}
		f.rows[n] = row
		n++
	}
	f.rows = f.rows[:n]
	return f
}

// transactNames commits all names but the last namesStep of them, if there are too many for one transaction.
func (c *committer) transactNames(f *folded) error {
	for len(f.rows) > namesStep {
		step := f.rows[:namesStep]
		if err := c.store.Apply(step, f.lastID, nil, c.committed(), nil); err != nil {
			return err
		}
		c.namesCommitted(step)
		f.rows = f.rows[namesStep:]
		c.writer.nameBytes.Add(-nameOpsBytes(step)) // writers need not wait for room until all names are committed
		c.endRound()
	}
	return nil
}

// namesCommitted notes the ids that the file now has.
func (c *committer) namesCommitted(rows []store.NameOp) {
	for _, n := range rows {
		if !n.Tag {
			c.setFileID(n.Name, n.ID)
		}
	}
}

// retire passes ids without a name to the sweeper, if the file has entries of them.
func (c *committer) retire(old []uint64) {
	if len(old) == 0 {
		return
	}
	c.evictor.retire(old)
	if held, err := c.store.Existing(old); err == nil {
		old = held // if the file cannot be read, the sweeper will find out
	}
	c.sweeper.retire(old...)
}
