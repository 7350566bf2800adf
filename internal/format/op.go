package format

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Op is one change in a log record of the journal, whose format is in docs/file-format.md. It holds what came of an
// operation: what keepcache.Bucket.Touch or Add decided is in the journal as the record that came of it, so that a
// replay needs to decide nothing.
type Op struct {
	Kind   OpKind
	ID     uint64
	Key    string // of a put or removal, or the name, or the tag
	Record []byte // of a put
}

// OpKind is what an Op does.
type OpKind byte

const (
	OpPut        OpKind = iota + 1 // a record is put under a key
	OpDelete                       // a key is removed
	OpBucket                       // a bucket has another id, 0 for none
	OpInvalidate                   // a tag is invalidated
)

// MaxOpHead is how many bytes AppendOp may append.
const MaxOpHead = 1 + 3*binary.MaxVarintLen64 + MaxKeyBytes

// AppendOp appends an op up to its record, which follows it.
func AppendOp(dst []byte, o *Op) []byte {
	dst = append(dst, byte(o.Kind))
	dst = binary.AppendUvarint(dst, o.ID)
	dst = binary.AppendUvarint(dst, uint64(len(o.Key)))
	if o.Kind == OpPut {
		dst = binary.AppendUvarint(dst, uint64(len(o.Record)))
	}
	return append(dst, o.Key...)
}

// ErrMalformed says that what stands in a log record is no op.
var ErrMalformed = errors.New("malformed log record")

// NextOp takes the first op off a log record. The error is ErrMalformed. Its record points into the log record.
func NextOp(logRecord []byte) (o Op, rest []byte, err error) {
	o.Kind, rest = OpKind(logRecord[0]), logRecord[1:]
	if o.Kind < OpPut || o.Kind > OpInvalidate {
		return o, nil, fmt.Errorf("%w: unknown op %d", ErrMalformed, o.Kind)
	}
	var keyLen, recLen uint64
	if o.ID, rest, err = nextUvarint(rest); err != nil {
		return o, nil, err
	}
	if keyLen, rest, err = nextUvarint(rest); err != nil {
		return o, nil, err
	}
	if o.Kind == OpPut {
		if recLen, rest, err = nextUvarint(rest); err != nil {
			return o, nil, err
		}
	}
	if keyLen > uint64(len(rest)) || recLen > uint64(len(rest))-keyLen {
		return o, nil, ErrMalformed
	}
	o.Key = string(rest[:keyLen])
	rest = rest[keyLen:]
	if o.Kind == OpPut {
		o.Record = rest[:recLen:recLen]
	}
	valid := ValidKey
	if o.Kind == OpBucket || o.Kind == OpInvalidate {
		valid = ValidName
	}
	if !valid(o.Key) || o.Kind == OpPut && recLen < HeaderSize+TrailerSize {
		return o, nil, ErrMalformed
	}
	return o, rest[recLen:], nil
}

func nextUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, ErrMalformed
	}
	return v, b[n:], nil
}

// EachOp calls fn for each op of a log record, with its revision.
func EachOp(first uint64, logRecord []byte, fn func(Op, uint64) error) error {
	for revision := first; len(logRecord) > 0; revision++ {
		o, rest, err := NextOp(logRecord)
		if err != nil {
			return err
		}
		if err := fn(o, revision); err != nil {
			return err
		}
		logRecord = rest
	}
	return nil
}

// Malformed are the log records of a journal that are whole but make no sense. None of the operations of such a log
// record counts.
type Malformed struct {
	LogRecords  int
	First, Last uint64 // revisions that they bound
	Err         error  // of the first
}

// Is reports whether a log record is malformed, and counts it then.
func (m *Malformed) Is(first, last uint64, logRecord []byte) bool {
	n := uint64(0)
	err := EachOp(first, logRecord, func(o Op, _ uint64) error {
		n++
		if o.Kind == OpPut {
			return CheckOptions(o.Record[:len(o.Record)-TrailerSize])
		}
		return nil
	})
	if err == nil && n != last-first+1 {
		err = fmt.Errorf("%w: it has %d operations of %d", ErrMalformed, n, last-first+1)
	}
	if err == nil {
		return false
	}
	if m.LogRecords++; m.LogRecords == 1 {
		m.First, m.Err = first, err
	}
	m.Last = last
	return true
}
