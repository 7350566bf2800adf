// Package verify proves a cache entry by entry, by whatever reads its file.
package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/keepcache/keepcache/internal/cost"
	"github.com/keepcache/keepcache/internal/format"
)

// File is what Run reads a file by: transactions, or pages without the lock.
type File interface {
	Table() (ids map[string]uint64, retired []uint64, highest uint64, err error)
	Revisions() (mark, highest uint64, err error)
	Size() (file int64, used map[uint64]cost.Usage, err error)
	AuditEntries(id uint64, from []byte, prove Prover) (page []Entry, more bool, err error)
	AuditRows(from []byte) (page []Row, more bool, err error)
	AuditTags(from []byte) (page []Tag, more bool, err error)
	TagCount() (rows, floor uint64, err error)
}

// Prover proves the record of a key. It keeps neither.
type Prover func(key, record []byte) (format.Header, error)

// verifier is one call of Run.
type verifier struct {
	ctx      context.Context
	file     File
	now      int64
	sequence uint64
	counted  map[uint64]cost.Usage
	ids      map[string]uint64 // of the buckets that exist, those included that only the journal has
	late     Late              // what the file does not have yet
	report   Report
}

func (v *verifier) run() error {
	before, err := v.standing()
	if err != nil {
		return err
	}
	filed, retired, highest, err := v.file.Table()
	if err != nil {
		return err
	}
	v.table(filed, highest)
	v.report.Buckets = len(v.ids)
	exist := make(map[uint64]bool, len(v.ids))
	for _, name := range slices.Sorted(maps.Keys(v.ids)) {
		exist[v.ids[name]] = true
		if err := v.entries(name, v.ids[name]); err != nil {
			return err
		}
	}
	// A bucket that was cleared or dropped since its name was looked up is retired by now, and has been looked at.
	retired = slices.DeleteFunc(retired, func(id uint64) bool { return exist[id] })
	for _, id := range filed {
		if !exist[id] { // cleared or dropped, as the journal says
			exist[id] = true
			retired = append(retired, id)
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
		v.usage(filed, after.used)
		if after.tags != tags {
			v.problem("", "", fmt.Errorf("the table of tags counts %d rows, there are %d", after.tags, tags))
		}
	}
	return nil
}

// standing is what must not have changed between two moments for a count in between to mean anything.
type standing struct {
	sequence uint64
	used     map[uint64]cost.Usage
	tags     uint64 // rows of their table
}

func (v *verifier) standing() (st standing, err error) {
	if _, st.sequence, err = v.file.Revisions(); err != nil {
		return st, err
	}
	if st.tags, _, err = v.file.TagCount(); err != nil {
		return st, err
	}
	_, st.used, err = v.file.Size()
	return st, err
}

func (v *verifier) problem(bucket, key string, err error) {
	if len(v.report.Problems) == MaxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{Bucket: bucket, Key: key, Err: err})
}

// Entry is an entry of the file, with what the expiry index says of it in the same transaction.
type Entry struct {
	Key    []byte
	Used   cost.Usage // of the entry
	Header format.Header
	Damage error // what the Prover said of the record

	Row    int64 // its index row
	Stands bool  // there is a row at that time in the expiry index
}

// Row is a row of the expiry index.
type Row struct {
	Raw   []byte
	ID    uint64
	Key   []byte
	Owned bool // there is an entry whose index row is this one
}

// Tag is a row of the table of invalidated tags.
type Tag struct{ Tag, Revision []byte }

// Report is what a run found, see keepcache.Report, where its fields are explained.
type Report struct {
	Buckets, Entries, Expired, Pending, Rows int
	Journal                                  JournalReport
	Problems                                 []Problem
	More                                     int
}

// JournalReport is what was found in the journal, see keepcache.JournalReport.
type JournalReport struct {
	FileBytes        int64
	Entries, Removed int
	Records          int
	Bytes            int64
	Torn             bool
	Foreign          bool
}

// Problem is one thing that is wrong.
type Problem struct {
	Bucket string
	Key    string
	Err    error
}

// MaxProblems is how many problems a report lists.
const MaxProblems = 100

// Known is what is known of a cache before its file is read.
type Known struct {
	IDs      map[string]uint64 // of the buckets that exist, those included that only the journal has
	Late     Late              // what the file does not have yet
	Journal  JournalReport
	Problems []error // of the journal
}

// Run reads a file, as of now. The error says why it could not come to an end; the report is of what came before.
func Run(ctx context.Context, file File, k Known, now int64) (Report, error) {
	v := &verifier{ctx: ctx, file: file, now: now, ids: k.IDs, late: k.Late, counted: make(map[uint64]cost.Usage)}
	v.report.Journal = k.Journal
	for _, err := range k.Problems {
		v.problem("", "", err)
	}
	err := v.run()
	return v.report, err
}
