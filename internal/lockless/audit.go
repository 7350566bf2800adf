package lockless

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/pagetree"
	"github.com/keepcache/keepcache/internal/store"
	"github.com/keepcache/keepcache/internal/verify"
)

// audit reads a file for Verify without its lock. Each call reads one consistent state.
type audit struct {
	reader *Reader
	tail   *tail // the journal's name operations, collected from call to call
}

// maxLateBytes bounds the memory for what an audit collects from the journal, in bytes.
const maxLateBytes = 128 << 20

// known returns the buckets, what the journal has beyond the file, and a report on the journal.
func (a *audit) known(ctx context.Context) (k verify.Known, err error) {
	err = a.reader.withView(a.tail, func(v *view) (err error) {
		if k.IDs, err = v.buckets(); err != nil {
			return err
		}
		k.Late, k.Journal = make(verify.Late), verify.JournalReport{}
		f, err := a.reader.open(beside.Journal(a.reader.path))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		size := 0
		found, err := journal.ReplayFrom(f, info.Size(), v.identity, v.mark, func(first, _ uint64, record []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return format.EachOp(first, record, func(o format.Op, revision uint64) error {
				e := verify.LateEntry{Revision: revision, Removed: o.Kind == format.OpDelete}
				switch o.Kind {
				case format.OpPut:
					e.StaleUntil = format.ReadHeader(o.Record).StaleUntil
				case format.OpDelete:
				default:
					return nil
				}
				if size += memory.EntryOverhead + len(o.Key); size > maxLateBytes {
					return errTailTooLarge
				}
				k.Late.Put(o.ID, o.Key, e)
				return nil
			})
		})
		k.Journal = verify.JournalReportOf(&found)
		switch {
		case errors.Is(err, format.ErrMalformed):
			return fmt.Errorf("%w: the journal: %w", errChanged, err)
		case err == nil && found.Damaged():
			return fmt.Errorf("%w: the journal", errChanged)
		}
		return err
	})
	return k, err
}

// withView calls fn with one state of the file.
func (a *audit) withView(fn func(*view) error) error { return a.reader.withView(a.tail, fn) }

func (a *audit) Table() (ids map[string]uint64, retired []uint64, highest uint64, err error) {
	err = a.withView(func(v *view) error {
		ids, retired = make(map[string]uint64), nil
		names, _, err := v.tree.Root().Bucket(format.BucketsBucket)
		if err != nil {
			return err
		}
		highest = names.Sequence()
		named := make(map[uint64]bool)
		err = names.Scan(nil, func(e *pagetree.Element) (bool, error) {
			id, err := e.Value()
			if err != nil {
				return false, err
			}
			n, err := store.NamedID(e.Key, id)
			ids[string(e.Key)] = n
			named[n] = true
			return true, err
		})
		if err != nil {
			return err
		}
		return v.unnamed(named, func(id uint64) { retired = append(retired, id) })
	})
	return ids, retired, highest, err
}

func (a *audit) Revisions() (mark, highest uint64, err error) {
	err = a.withView(func(v *view) error {
		meta, _, err := v.tree.Root().Bucket(format.MetaBucket)
		if err != nil {
			return err
		}
		last, _, err := meta.Get(format.MetaHighest)
		mark, highest = v.mark, max(v.mark, format.ReadUint64(last))
		return err
	})
	return mark, highest, err
}

func (a *audit) Size() (file int64, used map[uint64]cost.Usage, err error) {
	err = a.withView(func(v *view) error {
		file, used = v.meta.Bytes(), make(map[uint64]cost.Usage)
		page := cost.Paging(v.meta.PageSize())
		costs, _, err := v.tree.Root().Bucket(format.CostsBucket)
		if err != nil {
			return err
		}
		rows, _, err := v.tree.Root().Bucket(format.UsageBucket)
		if err != nil {
			return err
		}
		return rows.Scan(nil, func(e *pagetree.Element) (bool, error) {
			row, err := e.Value()
			if err == nil && len(e.Key) == 8 {
				var cost []byte
				cost, _, err = costs.Get(e.Key)
				used[format.ReadUint64(e.Key)] = page.ReadUsage(e.Key, row, cost)
			}
			return true, err
		})
	})
	return file, used, err
}

func (a *audit) AuditEntries(id uint64, from []byte, prove verify.Prover) (page []verify.Entry, more bool, err error) {
	err = a.withView(func(v *view) error {
		page, more = nil, false
		entries, err := v.entries(id)
		if err != nil {
			return err
		}
		expiry, _, err := v.tree.Root().Bucket(format.ExpiryBucket)
		if err != nil {
			return err
		}
		size := int64(0)
		return entries.Scan(from, func(e *pagetree.Element) (bool, error) {
			if len(page) == store.PageItems || size >= store.PageBytes {
				more = true
				return false, nil
			}
			value, err := e.Value()
			if err != nil {
				return false, err
			}
			row, rec := format.SplitRow(value, e.Key)
			a := verify.Entry{Key: bytes.Clone(e.Key), Used: cost.Paging(v.meta.PageSize()).Of(e.Key, rec), Row: row}
			if row != format.Never && row != format.UnknownRow {
				if _, a.Stands, err = expiry.Get(format.ExpiryKey(row, id, e.Key)); err != nil {
					return false, err
				}
			}
			if prove != nil {
				a.Header, a.Damage = prove(e.Key, rec)
			}
			page = append(page, a)
			size += int64(len(e.Key)) + e.Size()
			return true, nil
		})
	})
	return page, more, err
}

func (a *audit) AuditRows(from []byte) (page []verify.Row, more bool, err error) {
	err = a.withView(func(v *view) error {
		page, more = nil, false
		expiry, _, err := v.tree.Root().Bucket(format.ExpiryBucket)
		if err != nil {
			return err
		}
		return expiry.Scan(from, func(e *pagetree.Element) (bool, error) {
			if len(page) == store.PageItems {
				more = true
				return false, nil
			}
			r := verify.Row{Raw: bytes.Clone(e.Key)}
			if row, id, key, ok := format.SplitExpiryKey(r.Raw); ok {
				r.ID, r.Key = id, key
				entries, err := v.entries(id)
				if err != nil {
					return false, err
				}
				stored, found, err := entries.Head(key, format.RowSize)
				if err != nil {
					return false, err
				}
				at, _ := format.SplitRow(stored, key)
				r.Owned = found && at == row
			}
			page = append(page, r)
			return true, nil
		})
	})
	return page, more, err
}

func (a *audit) AuditTags(from []byte) (page []verify.Tag, more bool, err error) {
	err = a.withView(func(v *view) error {
		page, more = nil, false
		rows, _, err := v.tree.Root().Bucket(format.TagsBucket)
		if err != nil {
			return err
		}
		return rows.Scan(from, func(e *pagetree.Element) (bool, error) {
			if len(page) == store.PageItems {
				more = true
				return false, nil
			}
			revision, err := e.Value()
			page = append(page, verify.Tag{Tag: bytes.Clone(e.Key), Revision: bytes.Clone(revision)})
			return true, err
		})
	})
	return page, more, err
}

func (a *audit) TagCount() (rows, floor uint64, err error) {
	err = a.withView(func(v *view) error {
		tags, _, err := v.tree.Root().Bucket(format.TagsBucket)
		rows, floor = tags.Sequence(), v.floor
		return err
	})
	return rows, floor, err
}
