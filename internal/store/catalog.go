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

// Catalog is what a fresh file takes over from the file that it replaces: the journal still applies, revisions
// continue, and no bucket id is assigned twice. It has no entries.
type Catalog struct {
	Identity [16]byte
	Mark     uint64            // the journal need not be replayed up to here
	Highest  uint64            // the highest revision that was assigned
	Names    map[string]uint64 // ids of buckets
	LastID   uint64
	Tags     map[string]uint64
	TagFloor uint64
	root     []salvage.Element // where it was read from, if it was read from a file
	newest   bool              // root is the root of the last transaction
	allNames bool              // Names is complete as of that root
}

func newCatalog() *Catalog {
	return &Catalog{Names: make(map[string]uint64), Tags: make(map[string]uint64)}
}

// write writes the tables of a cache file from the catalog.
func (g *Catalog) write(tx *bolt.Tx) error {
	for _, name := range [][]byte{
		format.BucketsBucket, format.EntriesBucket, format.ExpiryBucket, format.UsageBucket, format.MetaBucket,
	} {
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
	for _, name := range slices.Sorted(maps.Keys(g.Names)) { // or each Put would move all others of a fresh page
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

// inherit reads from a damaged file, and from the journal beside it, as much as possible of what its successor takes
// over.
//
// The mark comes from the journal if there is one: what the damaged file had from that mark on is lost with it, but is
// still in the journal, except for writes that bypassed the journal (see completeFrom). If nothing of the file can be
// read, the successor gets a new identity and revisions start over.
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
		if g.Mark, err = g.completeFrom(in, journalAt, released); err != nil {
			return nil, err
		}
	case !known:
		g.Identity = newIdentity()
	}
	g.Highest = max(g.Highest, g.Mark)
	if !g.newest {
		// Invalidations up to the mark may be lost. The entries are lost too, but a load may have begun before an
		// invalidation and may store its value after it.
		g.TagFloor = max(g.TagFloor, g.Mark)
	}
	return g, nil
}

// completeFrom returns the mark from which on the journal has everything that the damaged file had. A write that the
// journal could not take, because it was too large or the journal had failed, went straight into the file. It is lost,
// but the version that it replaced must not come back. So everything in the journal from before that write is ignored.
// Only bucket names still count, because entries that come later in the journal need them. If the file has the names,
// they are as of its own mark, which is not before ours.
//
// Such a write shows as revisions that are missing between two log records, or after the last one. They can also be
// missing because the journal is damaged, but not below the mark of the file.
func (g *Catalog) completeFrom(in *disk.Dir, journalAt string, released uint64) (mark uint64, err error) {
	mark, seen := released, released
	names := make(map[string]uint64)
	var bad format.Malformed
	_, err = journal.ReplayIn(in, journalAt, g.Identity, released, func(first, last uint64, record []byte) error {
		if first > seen+1 && (first <= g.Mark+1 || !g.newest) {
			mark = first - 1
		}
		seen = last
		if bad.Is(first, last, record) {
			return nil
		}
		return format.EachOp(first, record, func(o format.Op, _ uint64) error {
			if o.Kind == format.OpBucket {
				names[o.Key] = o.ID
			}
			return nil
		})
	})
	for name, id := range names {
		if !(g.newest && g.allNames) && id > g.Names[name] { // ids rise
			g.Names[name] = id
			g.LastID = max(g.LastID, id)
		}
	}
	if g.Mark > seen {
		mark = g.Mark
	}
	return mark, err
}

// readRoots finds the root of the last transaction and reads its tables. If no meta page leads to a root, it takes the
// one with the highest revisions among all roots in the file, old ones included.
func (g *Catalog) readRoots(from *salvage.File) (known bool, err error) {
	var best []salvage.Element
	consider := func(id uint64) error {
		found, _, ok, err := from.Leaf(id)
		if !ok || err != nil || len(found) > maxRootElements {
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
		g.newest = known && i == 0
	}
	if !known { // older ones are left in free pages, in any order
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

// maxRootElements is the highest number of elements in the root of a cache file.
const maxRootElements = 16

// readMeta reads the bucket meta and reports whether it was there.
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

// smallValue returns the value of a row, or nil if it is longer than any in our tables.
func smallValue(from *salvage.File, e *salvage.Element) ([]byte, error) {
	if e.Bucket || e.Size > 64 {
		return nil, nil
	}
	return from.Value(e)
}

// readTables reads the tables of buckets and tags. If the table of tags is incomplete, every tag counts as invalidated
// up to now: a miss is better than an invalidated value.
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
			g.allNames = whole && !odd
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

// prune removes what no intact table has: an id of 0 or above the last, an id with two names, a revision above the
// highest.
func (g *Catalog) prune() {
	owner := make(map[uint64]string)
	for name, id := range g.Names {
		if _, taken := owner[id]; taken || id == 0 || id > g.LastID {
			delete(g.Names, name)
			g.allNames = false
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

// String describes the catalog for the log.
func (g *Catalog) String() string {
	return fmt.Sprintf("identity %x, revision %d, %d buckets", g.Identity[:4], g.Highest, len(g.Names))
}
