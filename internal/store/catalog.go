package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/salvage"
)

// Catalog is what a fresh file takes over from the one whose place it takes, so that the journal still applies,
// revisions go on and no id of a bucket is given out twice. Entries are not in it.
type Catalog struct {
	Identity [16]byte
	Mark     uint64            // up to which the journal need not be replayed
	Highest  uint64            // revision that was given out
	Names    map[string]uint64 // ids of buckets
	LastID   uint64
	Tags     map[string]uint64
	TagFloor uint64
	root     []salvage.Element // where it comes from, if it was read from a file
	sure     bool              // that is the root of the last transaction
	listed   bool              // all of names could be read there
}

func newCatalog() *Catalog {
	return &Catalog{Names: make(map[string]uint64), Tags: make(map[string]uint64)}
}

// write makes the layout of a file out of what it inherits.
func (g *Catalog) write(tx *bolt.Tx) error {
	for _, name := range [][]byte{format.BucketsBucket, format.EntriesBucket, format.ExpiryBucket, format.UsageBucket, format.MetaBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(format.MetaBucket)
	err := errors.Join(
		meta.Put(format.MetaFormat, binary.BigEndian.AppendUint32(nil, format.Version)),
		meta.Put(format.MetaIdentity, g.Identity[:]),
		meta.Put(format.MetaSequence, format.Uint64(g.Mark)),
	)
	if g.Highest > g.Mark {
		err = errors.Join(err, meta.Put(format.MetaHighest, format.Uint64(g.Highest)))
	}
	if g.TagFloor > 0 {
		err = errors.Join(err, meta.Put(format.MetaTagFloor, format.Uint64(g.TagFloor)))
	}
	if err != nil {
		return err
	}
	names := tx.Bucket(format.BucketsBucket)
	last := max(g.LastID, names.Sequence())
	var dropped [][]byte // since an older copy was made
	if err := names.ForEach(func(name, _ []byte) error {
		if _, ok := g.Names[string(name)]; !ok {
			dropped = append(dropped, bytes.Clone(name))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, name := range dropped {
		if err := names.Delete(name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.Names)) { // or each would move all others of a fresh page
		id := g.Names[name]
		last = max(last, id)
		if err := names.Put([]byte(name), format.Uint64(id)); err != nil {
			return err
		}
	}
	if err := names.SetSequence(last); err != nil {
		return err
	}
	var tags []NameOp
	for tag, revision := range g.Tags {
		tags = append(tags, NameOp{Name: tag, Tag: true, Revision: revision})
	}
	return putTags(tx, tags)
}

// inherit reads from a damaged file, and from the journal beside it, what can be read of what a successor takes over.
//
// The mark is the one of the journal where there is one: what the damaged file had from there on is lost with it, and
// in the journal once more, except for what went past it, see unbroken. A file of which nothing can be read leaves a new
// identity, and revisions start anew.
func inherit(in *disk.Dir, f *os.File, journalAt string) (*Catalog, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from, err := salvage.Open(f, info.Size())
	if err != nil {
		return nil, err
	}
	g := newCatalog()
	known, err := g.readRoots(from)
	if err != nil {
		return nil, err
	}
	identity, released, ok, err := journal.Peek(in, journalAt)
	if err != nil {
		return nil, err
	}
	switch {
	case ok && (!known || identity == g.Identity):
		g.Identity = identity
		g.Highest = max(g.Highest, g.Mark, released)
		if g.Mark, err = g.unbroken(in, journalAt, released); err != nil {
			return nil, err
		}
	case !known:
		g.Identity = newIdentity()
	}
	g.Highest = max(g.Highest, g.Mark)
	if !g.sure {
		// Invalidations up to the mark may be lost. Entries are so too, but for what a load brings that began before one.
		g.TagFloor = max(g.TagFloor, g.Mark)
	}
	return g, nil
}

// unbroken returns the mark from which on the journal has all that the damaged file had. A write that the journal could not
// take, because it was too large or because the journal had failed, went straight into the file. It is lost, but what it
// replaced must not come back: so nothing that the journal has from before counts, but for the names of buckets, without which
// nobody finds what it has from after. Where the file has these they are as of its own mark, which is not before ours.
//
// Such a write shows in the revisions that are missing between two pieces, or behind the last. They may as well be missing
// because the journal is damaged, but not below the mark of the file.
func (g *Catalog) unbroken(in *disk.Dir, journalAt string, released uint64) (mark uint64, err error) {
	mark, seen := released, released
	names := make(map[string]uint64)
	var bad format.Malformed
	_, err = journal.ReplayIn(in, journalAt, g.Identity, released, func(first, last uint64, piece []byte) error {
		if first > seen+1 && (first <= g.Mark+1 || !g.sure) {
			mark = first - 1
		}
		seen = last
		if bad.Is(first, last, piece) {
			return nil
		}
		return format.EachOp(first, piece, func(o format.Op, _ uint64) error {
			if o.Kind == format.OpBucket {
				names[o.Key] = o.ID
			}
			return nil
		})
	})
	for name, id := range names {
		if !(g.sure && g.listed) && id > g.Names[name] { // ids rise
			g.Names[name] = id
			g.LastID = max(g.LastID, id)
		}
	}
	if g.Mark > seen {
		mark = g.Mark
	}
	return mark, err
}

// readRoots looks for the root of the last transaction or, where no meta page leads to one, for the one with the highest
// revisions among all that lie about, and reads its tables.
func (g *Catalog) readRoots(from *salvage.File) (known bool, err error) {
	var best []salvage.Element
	consider := func(id uint64) error {
		found, _, ok, err := from.Leaf(id)
		if !ok || err != nil || len(found) > rootMost {
			return err
		}
		h := Catalog{}
		if ok, err := h.readMeta(from, found); !ok || err != nil {
			return err
		}
		if !known || max(h.Mark, h.Highest) > max(g.Mark, g.Highest) {
			known, best = true, found
			g.Identity, g.Mark, g.Highest, g.TagFloor = h.Identity, h.Mark, max(h.Highest, h.Mark), h.TagFloor
		}
		return nil
	}
	for i, id := range from.Roots() {
		if known {
			break
		}
		if err := consider(id); err != nil {
			return false, err
		}
		g.sure = known && i == 0
	}
	if !known { // older ones lie about too, in any order
		for id := uint64(2); id < from.Pages(); id++ {
			if err := consider(id); err != nil {
				return false, err
			}
		}
	}
	if !known {
		return false, nil
	}
	g.root = best
	return true, g.readTables(from, best)
}

// rootMost is how many elements the root of a file of ours has at most.
const rootMost = 16

// readMeta reads bucket meta, and reports whether it was there.
func (g *Catalog) readMeta(from *salvage.File, root []salvage.Element) (ok bool, err error) {
	for i := range root {
		if !root[i].Bucket || string(root[i].Key) != string(format.MetaBucket) {
			continue
		}
		_, err := from.Bucket(&root[i], nil, func(found []salvage.Element) error {
			for j := range found {
				value, err := smallValue(from, &found[j])
				if err != nil {
					return err
				}
				switch string(found[j].Key) {
				case string(format.MetaIdentity):
					ok = copy(g.Identity[:], value) == len(g.Identity)
				case string(format.MetaSequence):
					g.Mark = format.ReadUint64(value)
				case string(format.MetaHighest):
					g.Highest = format.ReadUint64(value)
				case string(format.MetaTagFloor):
					g.TagFloor = format.ReadUint64(value)
				}
			}
			return nil
		})
		return ok, err
	}
	return false, nil
}

// smallValue returns the value of an element of our tables, which are short; nil of one that is not.
func smallValue(from *salvage.File, e *salvage.Element) ([]byte, error) {
	if e.Bucket || e.Size > 64 {
		return nil, nil
	}
	return from.Value(e)
}

// readTables reads the tables of buckets and tags. Where that of the tags is not whole, every tag counts as invalidated
// up to here: rather a miss than a value that was invalidated.
func (g *Catalog) readTables(from *salvage.File, root []salvage.Element) error {
	odd := false
	rows := func(e *salvage.Element, most int, into map[string]uint64) (whole bool, err error) {
		return from.Bucket(e, nil, func(found []salvage.Element) error {
			for i := range found {
				value, err := smallValue(from, &found[i])
				if err != nil {
					return err
				}
				if len(value) == 8 && len(found[i].Key) <= most {
					into[string(found[i].Key)] = format.ReadUint64(value)
				} else {
					odd = true
				}
			}
			return nil
		})
	}
	for i := range root {
		e := &root[i]
		switch {
		case !e.Bucket:
		case string(e.Key) == string(format.BucketsBucket):
			whole, err := rows(e, format.MaxNameBytes, g.Names)
			if err != nil {
				return err
			}
			g.listed = whole && !odd
			g.LastID = from.Sequence(e)
		case string(e.Key) == string(format.TagsBucket):
			whole, err := rows(e, format.MaxNameBytes, g.Tags)
			if err != nil {
				return err
			}
			if !whole {
				g.TagFloor = max(g.TagFloor, g.Mark)
			}
		}
	}
	g.prune()
	return nil
}

// prune leaves out what no sound table has: an id of 0 or beyond the last, an id of two names, a revision from
// beyond the highest.
func (g *Catalog) prune() {
	owner := make(map[uint64]string)
	for name, id := range g.Names {
		if _, taken := owner[id]; taken || id == 0 || id > g.LastID {
			delete(g.Names, name)
			g.listed = false
			continue
		}
		owner[id] = name
	}
	for tag, revision := range g.Tags {
		if revision > max(g.Highest, g.Mark) {
			delete(g.Tags, tag)
			g.TagFloor = max(g.TagFloor, g.Mark)
		}
	}
}

// String is for the log.
func (g *Catalog) String() string {
	return fmt.Sprintf("identity %x, revision %d, %d buckets", g.Identity[:4], g.Highest, len(g.Names))
}
