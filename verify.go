package keepcache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Report is what Verify found.
type Report struct {
	Buckets int // buckets that exist
	Entries int // their entries, expired ones included
	Expired int // of those, the expired ones that the sweeper has not reached yet
	Pending int // entries of cleared and dropped buckets that the sweeper has not reached yet
	Rows    int // rows of the expiry index

	Problems []Problem // what is wrong, the first MaxProblems of it; none in a sound cache
	More     int       // how many further problems were found
}

// MaxProblems is how many problems a Report lists.
const MaxProblems = 100

// OK reports whether the cache is sound.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Problem is one thing that is wrong with a cache.
type Problem struct {
	Bucket string // the bucket's name, empty where it has none
	Key    string // the entry's key, empty where the problem is not of one entry
	Err    error  // what is wrong
}

// String reads `entry "key" of bucket "name": what is wrong`.
func (p Problem) String() string {
	switch {
	case p.Key != "":
		return fmt.Sprintf("entry %s of bucket %s: %v", quoteShort(p.Key), quoteShort(p.Bucket), p.Err)
	case p.Bucket != "":
		return fmt.Sprintf("bucket %s: %v", quoteShort(p.Bucket), p.Err)
	}
	return p.Err.Error()
}

// Verify proves the cache entry by entry: each record against its checksum and its place, each entry that
// has a lifetime against the expiry index and each row of the index against its entry, the table of
// buckets, and the counts of entries and bytes. It reads in short transactions while the cache is in use,
// and then leaves out the counts, which would not stand still.
//
// What is wrong is in the Report. The error says why Verify could not finish: ctx ended, the cache is
// closed, or the file cannot be read.
func (db *DB) Verify(ctx context.Context) (Report, error) {
	if db.closed.Load() {
		return Report{}, db.fail("verify", "", ErrClosed)
	}
	if db.live != nil {
		return Report{}, db.fail("verify", "", errNeedsLock)
	}
	if db.writer != nil {
		// Where that fails, as on a full disk, the file is still there to be proved; Stats has the error.
		_ = db.commits.commit()
	}
	v := &verifier{ctx: ctx, store: db.store, now: millis(time.Now()), counted: make(map[uint64]usage)}
	if err := v.run(); err != nil {
		return v.report, db.fail("verify", "", err)
	}
	return v.report, nil
}

var errNeedsLock = fmt.Errorf("it cannot be done without the lock: %w", errors.ErrUnsupported)

// verifier is one run of Verify.
type verifier struct {
	ctx      context.Context
	store    *store
	now      int64
	sequence uint64
	counted  map[uint64]usage
	report   Report
}

func (v *verifier) run() error {
	before, err := v.standing()
	if err != nil {
		return err
	}
	ids, retired, highest, err := v.store.table()
	if err != nil {
		return err
	}
	v.table(ids, highest)
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		if err := v.entries(name, ids[name]); err != nil {
			return err
		}
	}
	for _, id := range retired {
		if err := v.retired(id); err != nil {
			return err
		}
	}
	if err := v.rows(); err != nil {
		return err
	}
	tags, err := v.tags()
	if err != nil {
		return err
	}
	after, err := v.standing()
	if err != nil {
		return err
	}
	if before.sequence == after.sequence && maps.Equal(before.used, after.used) {
		v.usage(ids, after.used)
		if after.tags != tags {
			v.problem("", "", fmt.Errorf("the table of tags counts %d rows, there are %d", after.tags, tags))
		}
	}
	return nil
}

// standing is what must not have changed between two moments for a count in between to mean anything.
type standing struct {
	sequence uint64
	used     map[uint64]usage
	tags     uint64 // rows of their table
}

func (v *verifier) standing() (st standing, err error) {
	if _, st.sequence, err = v.store.revisions(); err != nil {
		return st, err
	}
	if st.tags, _, err = v.store.tagCount(); err != nil {
		return st, err
	}
	_, st.used, err = v.store.size()
	return st, err
}

func (v *verifier) table(ids map[string]uint64, highest uint64) {
	v.report.Buckets = len(ids)
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
	sum := nameSum(name)
	return v.walk(id, func(e audited) error {
		v.report.Entries++
		h, _, err := openStored(e.record, sum, string(e.key))
		if err != nil {
			v.problem(name, string(e.key), err)
			return nil
		}
		if h.goneAt <= v.now {
			v.report.Expired++
		}
		switch {
		case e.row == unknown:
			v.problem(name, string(e.key), errors.New("its index row is damaged"))
		case e.row == never && h.goneAt != never:
			v.problem(name, string(e.key), errors.New("it has a lifetime but no expiry row"))
		case e.row != never && !e.stands:
			v.problem(name, string(e.key), errors.New("its expiry row is missing"))
		case e.row > h.goneAt:
			v.problem(name, string(e.key), errors.New("its expiry row is later than the time it is gone"))
		}
		return v.revision(name, string(e.key), h.revision)
	})
}

// revision proves that a record is not from beyond the sequence, which may have risen since the last look.
func (v *verifier) revision(name, key string, revision uint64) (err error) {
	if revision > v.sequence {
		if _, v.sequence, err = v.store.revisions(); err != nil {
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
	return v.walk(id, func(audited) error {
		v.report.Pending++
		return nil
	})
}

// walk calls fn for each entry of a bucket.
func (v *verifier) walk(id uint64, fn func(audited) error) error {
	var from []byte
	for more := true; more; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		var page []audited
		var err error
		if page, more, err = v.store.auditEntries(id, from); err != nil {
			return err
		}
		for _, e := range page {
			u := v.counted[id]
			v.counted[id] = usage{u.entries + 1, u.bytes + int64(len(e.key)+len(e.record))}
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
		if page, more, err = v.store.auditRows(from); err != nil {
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
	_, floor, err := v.store.tagCount()
	if err == nil {
		err = v.tagRevision("which every tag counts as invalidated", floor)
	}
	var from []byte
	for more := true; more && err == nil; {
		if err = v.ctx.Err(); err != nil {
			break
		}
		var page []auditedTag
		if page, more, err = v.store.auditTags(from); err != nil {
			break
		}
		for _, r := range page {
			rows++
			from = append(r.tag, 0)
			if tag := r.tag; len(r.revision) != 8 || !validName(string(tag)) {
				v.problem("", "", fmt.Errorf("the table of tags has a malformed row for %s", quoteShort(string(tag))))
			} else if err = v.tagRevision("which tag "+quoteShort(string(tag))+" was invalidated", decodeUint64(r.revision)); err != nil {
				break
			}
		}
	}
	return rows, err
}

func (v *verifier) tagRevision(what string, revision uint64) (err error) {
	if revision > v.sequence {
		if _, v.sequence, err = v.store.revisions(); err != nil {
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
		if c := v.counted[id]; c != k {
			v.problem(names[id], "", fmt.Errorf("the file counts %d entries of %d bytes, there are %d of %d",
				k.entries, k.bytes, c.entries, c.bytes))
		}
	}
}

func (v *verifier) problem(bucket, key string, err error) {
	if len(v.report.Problems) == MaxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{Bucket: bucket, Key: key, Err: err})
}
