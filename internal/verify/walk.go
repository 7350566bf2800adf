package verify

import (
	"errors"
	"fmt"
	"maps"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
)

// table proves the table of buckets.
func (v *verifier) table(ids map[string]uint64, highest uint64) {
	owner := make(map[uint64]string, len(ids))
	for name, id := range ids {
		if id == 0 || id > highest {
			v.problem(name, "", fmt.Errorf("its id %d was never given out", id))
		}
		if other, taken := owner[id]; taken {
			v.problem(name, "", fmt.Errorf("it shares id %d with bucket %s", id, errs.Quote(other)))
		}
		owner[id] = name
	}
}

// entries proves the entries of a bucket, and each one's row in the expiry index.
func (v *verifier) entries(name string, id uint64) error {
	sum := format.BucketSum(name)
	prove := func(key, record []byte) (format.Header, error) {
		h, _, err := format.OpenStored(record, sum, string(key))
		return h, err
	}
	err := v.walk(id, prove, func(e Entry) error {
		late, isLate := v.late.of(id, e.Key)
		switch {
		case !isLate:
			v.count(e.Damage == nil && e.Header.StaleUntil <= v.now)
		case late.Removed:
			v.report.Journal.Removed++
		}
		if e.Damage != nil {
			v.problem(name, string(e.Key), e.Damage)
			return nil
		}
		switch h := &e.Header; {
		case e.Row == format.UnknownRow:
			v.problem(name, string(e.Key), errors.New("its index row is damaged"))
		case e.Row == format.Never && h.StaleUntil != format.Never:
			v.problem(name, string(e.Key), errors.New("it has a lifetime but no expiry row"))
		case e.Row != format.Never && !e.Stands:
			v.problem(name, string(e.Key), errors.New("its expiry row is missing"))
		case e.Row > h.StaleUntil:
			v.problem(name, string(e.Key), errors.New("its expiry row is later than the time it is gone"))
		}
		return v.revision(name, string(e.Key), e.Header.Revision)
	})
	if err != nil {
		return err
	}
	for key, late := range v.late[id] {
		if late.Removed {
			continue
		}
		v.report.Journal.Entries++
		v.count(late.StaleUntil <= v.now)
		if late.Record == nil {
			continue
		}
		if _, err := prove([]byte(key), late.Record); err != nil {
			v.problem(name, key, fmt.Errorf("in the journal: %w", err))
		}
	}
	return nil
}

// count counts an entry.
func (v *verifier) count(expired bool) {
	v.report.Entries++
	if expired {
		v.report.Expired++
	}
}

// revision proves that a record is not from beyond the sequence, which may have risen since the last look.
func (v *verifier) revision(name, key string, revision uint64) (err error) {
	if revision > v.sequence {
		if _, v.sequence, err = v.file.Revisions(); err != nil {
			return err
		}
	}
	if revision > v.sequence {
		v.problem(name, key, fmt.Errorf("its revision %d is beyond the cache's last, %d", revision, v.sequence))
	}
	return nil
}

// retired counts the entries of a bucket that no name points at any more.
func (v *verifier) retired(id uint64) error {
	return v.walk(id, nil, func(Entry) error {
		v.report.Pending++
		return nil
	})
}

// walk calls fn for each entry of a bucket.
func (v *verifier) walk(id uint64, prove Prover, fn func(Entry) error) error {
	var from []byte
	for more := true; more; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		var page []Entry
		var err error
		if page, more, err = v.file.AuditEntries(id, from, prove); err != nil {
			return err
		}
		for _, e := range page {
			v.counted[id] = v.counted[id].Plus(e.Used)
			if err := fn(e); err != nil {
				return err
			}
			from = append(e.Key, 0)
		}
	}
	return nil
}

// rows proves that each row of the expiry index belongs to an entry.
func (v *verifier) rows() error {
	var from []byte
	for more := true; more; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		var page []Row
		var err error
		if page, more, err = v.file.AuditRows(from); err != nil {
			return err
		}
		for _, r := range page {
			v.report.Rows++
			switch {
			case r.Key == nil:
				v.problem("", "", fmt.Errorf("the expiry index has a malformed row of %d bytes", len(r.Raw)))
			case !r.Owned:
				v.problem("", "", fmt.Errorf("the expiry index has a row for %s in bucket id %d that no entry owns",
					errs.Quote(string(r.Key)), r.ID))
			}
			from = append(r.Raw, 0)
		}
	}
	return nil
}

// tags proves the table of invalidated tags and returns how many rows it has. A revision from the future would make
// entries absent that nobody has invalidated.
func (v *verifier) tags() (rows uint64, err error) {
	_, floor, err := v.file.TagCount()
	if err == nil {
		err = v.tagRevision("which every tag counts as invalidated", floor)
	}
	var from []byte
	for more := true; more && err == nil; {
		if err = v.ctx.Err(); err != nil {
			break
		}
		var page []Tag
		if page, more, err = v.file.AuditTags(from); err != nil {
			break
		}
		for _, r := range page {
			rows++
			from = append(r.Tag, 0)
			if tag := r.Tag; len(r.Revision) != 8 || !format.ValidName(string(tag)) {
				v.problem("", "", fmt.Errorf("the table of tags has a malformed row for %s", errs.Quote(string(tag))))
			} else if err = v.tagRevision("which tag "+errs.Quote(string(tag))+" was invalidated",
				format.ReadUint64(r.Revision)); err != nil {
				break
			}
		}
	}
	return rows, err
}

func (v *verifier) tagRevision(what string, revision uint64) (err error) {
	if revision > v.sequence {
		if _, v.sequence, err = v.file.Revisions(); err != nil {
			return err
		}
	}
	if revision > v.sequence {
		v.problem("", "", fmt.Errorf("the revision %d at %s is beyond the cache's last, %d", revision, what, v.sequence))
	}
	return nil
}

// usage proves the counts that the file keeps.
func (v *verifier) usage(ids map[string]uint64, kept map[uint64]cost.Usage) {
	names := make(map[uint64]string, len(ids))
	for name, id := range ids {
		names[id] = name
	}
	for id := range maps.All(v.counted) {
		if _, ok := kept[id]; !ok {
			v.problem(names[id], "", errors.New("the file keeps no count of its entries"))
		}
	}
	for id, k := range kept {
		switch c := v.counted[id]; {
		case id == 0: // no bucket
		case c.Entries != k.Entries || c.Bytes != k.Bytes:
			v.problem(names[id], "", fmt.Errorf("the file counts %d entries of %d bytes, there are %d of %d",
				k.Entries, k.Bytes, c.Entries, c.Bytes))
		case c != k && !k.Guessed:
			v.problem(names[id], "", fmt.Errorf("the file counts its entries as %d and %d bytes of it, they are %d and %d",
				k.Leaf, k.Row, c.Leaf, c.Row))
		}
	}
}
