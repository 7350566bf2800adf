package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/salvage"
)

const (
	// repairEntries and repairBytes bound one transaction.
	repairEntries = 4096
	repairBytes   = 8 << 20

	// maxRepairNames bounds the bucket names that are tried on each record.
	maxRepairNames = 10_000

	// maxProveBytes bounds how many bytes are checksummed to find the bucket of one record.
	maxProveBytes = 1 << 30

	// maxRepairRecord bounds the memory for one record: its value, and 1 MiB for all else. A damaged element may claim 4
	// GiB.
	maxRepairRecord = format.MaxValueBytes + 1<<20
)

// RepairReport is the result of Repair, see keepcache.RepairReport.
type RepairReport struct {
	Entries  int
	Buckets  int
	Expired  int
	Unproved int
	Older    int
	Whole    bool
}

// Repair writes all entries of the file at from that pass their checksum to a new file at to. See keepcache.Repair.
func Repair(ctx context.Context, from, to string, names []string) (RepairReport, error) {
	r := &repair{ctx: ctx, sums: make(map[string]uint32), ids: make(map[string]uint64)}
	err := r.run(from, to, names)
	return r.report, err
}

// repair is one run of Repair.
type repair struct {
	ctx    context.Context
	from   *salvage.File
	to     *Handle
	report RepairReport

	names   []string          // in the order in which they are tried
	sums    map[string]uint32 // by name
	ids     map[string]uint64 // in the new file, by name, of buckets that have entries
	highest uint64            // the highest revision
	batch   []proven
	size    int
}

// proven is an entry that passed its checksum.
type proven struct {
	name   string
	key    []byte
	record []byte
	header format.Header
}

func (r *repair) run(from, to string, names []string) error {
	f, err := disk.OpenRegular(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	in, to, err := disk.OpenDir(to) // pinned now, because to may lead elsewhere while the file is read
	if err != nil {
		return err
	}
	defer in.Close()
	if err := lockFile(f, false, 0); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errNotRegular
	}
	if r.from, err = salvage.Open(f, info.Size()); err != nil {
		return err
	}
	if _, err := in.Lstat(to); err == nil {
		return &fs.PathError{Op: "create", Path: to, Err: fs.ErrExist}
	}
	// Use another name until the file is complete.
	tmp := beside.Path(to, ".new-repair")
	if r.to, err = createLocked(in, tmp, disk.Attributes{}, copyReserve); err != nil {
		return err
	}
	defer in.Remove(tmp)
	r.to.db.NoSync, r.to.db.NoGrowSync = true, true
	err = r.salvage(names)
	if err == nil && r.report.Entries == 0 && !r.report.Whole {
		why := errors.New("no entry is left of it")
		if r.report.Unproved > 0 {
			why = errors.New("no record of it can be proved under the name of a bucket that is known")
		}
		err = unrecognised(f, info.Size(), why)
	}
	if err == nil {
		r.to.db.NoFreelistSync = false // so that opening it need not search for free pages
		err = r.to.update(func(*bolt.Tx) error { return nil })
	}
	if err = errors.Join(err, r.to.Close()); err != nil {
		return err
	}
	if err := syncPath(in, tmp); err != nil {
		return err
	}
	if err := in.Link(tmp, to); err != nil {
		return err
	}
	return in.Sync(to)
}

// salvage fills the new file.
func (r *repair) salvage(names []string) error {
	g := newCatalog()
	known, err := g.readRoots(r.from)
	if err != nil {
		return err
	}
	names = append(slices.Sorted(maps.Keys(g.Names)), names...)
	for _, name := range names {
		r.addName(name)
	}
	if err := r.to.update(newCatalog().write); err != nil {
		return err
	}
	seen := make(map[uint64]bool)
	if known {
		whole, err := r.takeReachable(g.root, seen)
		if err != nil {
			return err
		}
		r.report.Whole = whole && g.newest
	}
	if !r.report.Whole {
		if err := r.findNames(seen); err != nil {
			return err
		}
		if err := r.takeUnreachable(seen); err != nil {
			return err
		}
	}
	if err := r.flush(); err != nil {
		return err
	}
	g.Identity, g.Names, g.LastID = newIdentity(), r.ids, 0
	g.Mark = max(g.Mark, g.Highest, r.highest)
	r.report.Buckets = len(r.ids)
	return r.to.update(g.write)
}

func (r *repair) addName(name string) {
	if _, known := r.sums[name]; !known && format.ValidName(name) && len(r.names) < maxRepairNames {
		r.names = append(r.names, name)
		r.sums[name] = format.BucketSum(name)
	}
}

// takeReachable takes the entries of all buckets below a root, and reports whether those are complete.
func (r *repair) takeReachable(root []salvage.Element, seen map[uint64]bool) (whole bool, err error) {
	for i := range root {
		if !root[i].Bucket || string(root[i].Key) != string(format.EntriesBucket) {
			continue
		}
		whole = true
		all, err := r.from.Bucket(&root[i], seen, func(found []salvage.Element) error {
			for j := range found {
				if !found[j].Bucket {
					whole = false
					continue
				}
				all, err := r.from.Bucket(&found[j], seen, r.take)
				if err != nil {
					return err
				}
				whole = whole && all
			}
			return nil
		})
		return whole && all, err
	}
	return false, nil
}

// takeUnreachable takes entries from all other pages.
func (r *repair) takeUnreachable(seen map[uint64]bool) error {
	return r.eachUnseenLeaf(seen, func(found []salvage.Element) error {
		for i := range found {
			if found[i].Bucket {
				if err := r.from.Inline(&found[i], r.take); err != nil {
					return err
				}
			}
		}
		return r.take(found)
	})
}

// findNames adds the keys of all elements that may be rows of the table of buckets.
func (r *repair) findNames(seen map[uint64]bool) error {
	rows := func(found []salvage.Element) error {
		for i := range found {
			if e := &found[i]; !e.Bucket && e.Size == 8 {
				r.addName(string(e.Key))
			}
		}
		return nil
	}
	return r.eachUnseenLeaf(seen, func(found []salvage.Element) error {
		for i := range found {
			if found[i].Bucket {
				if err := r.from.Inline(&found[i], rows); err != nil {
					return err
				}
			}
		}
		return rows(found)
	})
}

// eachUnseenLeaf calls fn for every leaf that is not in seen.
func (r *repair) eachUnseenLeaf(seen map[uint64]bool, fn func([]salvage.Element) error) error {
	for id := uint64(2); id < r.from.Pages(); id++ {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if seen[id] {
			continue
		}
		found, _, ok, err := r.from.Leaf(id)
		if err == nil && ok {
			err = fn(found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take takes the entries of a leaf.
func (r *repair) take(found []salvage.Element) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	for i := range found {
		e := &found[i]
		if e.Bucket || e.Size < format.RowSize+format.HeaderSize+format.TrailerSize || !format.ValidKey(string(e.Key)) {
			continue
		}
		if e.Size > maxRepairRecord {
			r.report.Unproved++
			continue
		}
		stored, err := r.from.Value(e)
		if err != nil {
			return err
		}
		_, rec := format.SplitRow(stored, e.Key)
		if rec[0] != format.RecordVersion {
			continue
		}
		p, ok := r.prove(string(e.Key), rec)
		if !ok {
			r.report.Unproved++
			continue
		}
		// Expired entries are taken too: an older version that has not expired must not replace a newer one that has.
		r.highest = max(r.highest, p.header.Revision)
		r.batch = append(r.batch, p)
		if r.size += len(p.key) + len(p.record); len(r.batch) >= repairEntries || r.size >= repairBytes {
			if err := r.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// prove looks for the bucket name under which a record passes its checksum. Neighbours are usually in the same bucket,
// so it tries the last name first.
func (r *repair) prove(key string, rec []byte) (proven, bool) {
	for i, name := range r.names {
		if int64(i)*int64(len(rec)) > maxProveBytes {
			break
		}
		h, _, err := format.OpenStored(rec, r.sums[name], key)
		if err != nil {
			continue
		}
		copy(r.names[1:i+1], r.names[:i])
		r.names[0] = name
		return proven{name, []byte(key), bytes.Clone(rec), h}, true
	}
	return proven{}, false
}

// flush writes the collected entries, except where the new file has a later version.
func (r *repair) flush() error {
	if len(r.batch) == 0 {
		return nil
	}
	for _, p := range r.batch {
		if r.ids[p.name] == 0 {
			r.ids[p.name] = uint64(len(r.ids)) + 1
		}
	}
	slices.SortFunc(r.batch, func(a, b proven) int {
		return cmp.Or(cmp.Compare(r.ids[a.name], r.ids[b.name]), bytes.Compare(a.key, b.key))
	})
	now := format.Millis(time.Now())
	err := r.to.update(func(tx *bolt.Tx) error {
		expiry, book := tx.Bucket(format.ExpiryBucket), makeLedger(pageOf(tx))
		expiry.FillPercent = rowFill
		for _, p := range r.batch {
			id := r.ids[p.name]
			b, err := tx.Bucket(format.EntriesBucket).CreateBucketIfNotExists(format.Uint64(id))
			if err != nil {
				return err
			}
			b.FillPercent = fillScattered // pages are read in any order
			if _, old := format.SplitRow(b.Get(p.key), p.key); old != nil {
				r.report.Older++
				if format.ReadHeader(old).Revision >= p.header.Revision {
					continue
				}
				r.report.Entries--
			}
			if p.header.StaleUntil <= now {
				r.report.Expired++
			}
			r.report.Entries++
			a := applier{entries: b, cursor: b.Cursor(), expiry: expiry, now: now, book: book}
			if err := a.apply(&Change{ID: id, Key: p.key, Record: p.record, StaleUntil: p.header.StaleUntil}); err != nil {
				return fmt.Errorf("write %s: %w", errs.Quote(string(p.key)), err)
			}
			if err := putSorted(expiry, a.rows); err != nil { // now, because a later version of the key deletes it again
				return err
			}
		}
		return book.flush(tx)
	})
	r.batch, r.size = nil, 0
	return err
}
