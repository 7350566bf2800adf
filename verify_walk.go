package keepcache

import (
	"errors"
	"fmt"
	"maps"

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
			v.problem(name, "", fmt.Errorf("it shares id %d with bucket %s", id, quoteShort(other)))
		}
		owner[id] = name
	}
}

// entries proves the entries of a bucket, and each one's row in the expiry index.
func (v *verifier) entries(name string, id uint64) error {
	sum := format.BucketSum(name)
	prove := func(key, record []byte) (format.Header, error) {
		h, _, err := openStored(record, sum, string(key))
		return h, err
	}
	err := v.walk(id, prove, func(e audited) error {
		late, isLate := v.late.of(id, e.key)
		switch {
		case !isLate:
			v.count(e.damage == nil && e.header.GoneAt <= v.now)
		case late.removed:
			v.report.Journal.Removed++
		}
		if e.damage != nil {
			v.problem(name, string(e.key), e.damage)
			return nil
		}
		switch h := &e.header; {
		case e.row == format.UnknownRow:
			v.problem(name, string(e.key), errors.New("its index row is damaged"))
		case e.row == format.Never && h.GoneAt != format.Never:
			v.problem(name, string(e.key), errors.New("it has a lifetime but no expiry row"))
		case e.row != format.Never && !e.stands:
			v.problem(name, string(e.key), errors.New("its expiry row is missing"))
		case e.row > h.GoneAt:
			v.problem(name, string(e.key), errors.New("its expiry row is later than the time it is gone"))
		}
		return v.revision(name, string(e.key), e.header.Revision)
	})
	if err != nil {
		return err
	}
	for key, late := range v.late[id] {
		if late.removed {
			continue
		}
		v.report.Journal.Entries++
		v.count(late.goneAt <= v.now)
		if late.record == nil {
			continue
		}
		if _, err := prove([]byte(key), late.record); err != nil {
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
		if _, v.sequence, err = v.file.revisions(); err != nil {
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
	return v.walk(id, nil, func(audited) error {
		v.report.Pending++
		return nil
	})
}

// walk calls fn for each entry of a bucket.
func (v *verifier) walk(id uint64, prove prover, fn func(audited) error) error {
	var from []byte
	for more := true; more; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		var page []audited
		var err error
		if page, more, err = v.file.auditEntries(id, from, prove); err != nil {
			return err
		}
		for _, e := range page {
			v.counted[id] = v.counted[id].plus(e.used)
			if err := fn(e); err != nil {
				return err
			}
			from = append(e.key, 0)
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
		var page []auditedRow
		var err error
		if page, more, err = v.file.auditRows(from); err != nil {
			return err
		}
		for _, r := range page {
			v.report.Rows++
			switch {
			case r.key == nil:
				v.problem("", "", fmt.Errorf("the expiry index has a malformed row of %d bytes", len(r.raw)))
			case !r.owned:
				v.problem("", "", fmt.Errorf("the expiry index has a row for %s in bucket id %d that no entry owns",
					quoteShort(string(r.key)), r.id))
			}
			from = append(r.raw, 0)
		}
	}
	return nil
}

// tags proves the table of invalidated tags and returns how many rows it has. A revision from the future would make
// entries absent that nobody has invalidated.
func (v *verifier) tags() (rows uint64, err error) {
	_, floor, err := v.file.tagCount()
	if err == nil {
		err = v.tagRevision("which every tag counts as invalidated", floor)
	}
	var from []byte
	for more := true; more && err == nil; {
		if err = v.ctx.Err(); err != nil {
			break
		}
		var page []auditedTag
		if page, more, err = v.file.auditTags(from); err != nil {
			break
		}
		for _, r := range page {
			rows++
			from = append(r.tag, 0)
			if tag := r.tag; len(r.revision) != 8 || !format.ValidName(string(tag)) {
				v.problem("", "", fmt.Errorf("the table of tags has a malformed row for %s", quoteShort(string(tag))))
			} else if err = v.tagRevision("which tag "+quoteShort(string(tag))+" was invalidated", format.ReadUint64(r.revision)); err != nil {
				break
			}
		}
	}
	return rows, err
}

func (v *verifier) tagRevision(what string, revision uint64) (err error) {
	if revision > v.sequence {
		if _, v.sequence, err = v.file.revisions(); err != nil {
			return err
		}
	}
	if revision > v.sequence {
		v.problem("", "", fmt.Errorf("the revision %d at %s is beyond the cache's last, %d", revision, what, v.sequence))
	}
	return nil
}

// usage proves the counts that the file keeps.
func (v *verifier) usage(ids map[string]uint64, kept map[uint64]usage) {
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
		case c.entries != k.entries || c.bytes != k.bytes:
			v.problem(names[id], "", fmt.Errorf("the file counts %d entries of %d bytes, there are %d of %d",
				k.entries, k.bytes, c.entries, c.bytes))
		case c != k && !k.guessed:
			v.problem(names[id], "", fmt.Errorf("the file counts its entries as %d and %d bytes of it, they are %d and %d",
				k.leaf, k.row, c.leaf, c.row))
		}
	}
}
