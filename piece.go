package keepcache

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// outcome is one change in a piece of the journal, whose format is in docs/file-format.md. It is never an operation: what Touch or Add
// decided is in the journal as the record that came of it, so that a replay needs to decide nothing.
type outcome struct {
	kind   outcomeKind
	id     uint64
	key    string // of a put or remove, or the name, or the tag
	record []byte // of a put
}

type outcomeKind byte

const (
	outcomePut outcomeKind = iota + 1
	outcomeRemove
	outcomeName
	outcomeTag
)

// outcomeMost is how many bytes appendOutcome may append.
const outcomeMost = 1 + 3*binary.MaxVarintLen64 + MaxKeyBytes

// appendOutcome appends an outcome up to its record, which follows it.
func appendOutcome(dst []byte, o *outcome) []byte {
	dst = append(dst, byte(o.kind))
	dst = binary.AppendUvarint(dst, o.id)
	dst = binary.AppendUvarint(dst, uint64(len(o.key)))
	if o.kind == outcomePut {
		dst = binary.AppendUvarint(dst, uint64(len(o.record)))
	}
	return append(dst, o.key...)
}

var errPiece = errors.New("malformed piece")

// nextOutcome takes the first outcome off a piece. Its record points into the piece.
func nextOutcome(piece []byte) (o outcome, rest []byte, err error) {
	o.kind, rest = outcomeKind(piece[0]), piece[1:]
	if o.kind < outcomePut || o.kind > outcomeTag {
		return o, nil, fmt.Errorf("%w: unknown outcome %d", errPiece, o.kind)
	}
	var keyLen, recLen uint64
	if o.id, rest, err = nextUvarint(rest); err != nil {
		return o, nil, err
	}
	if keyLen, rest, err = nextUvarint(rest); err != nil {
		return o, nil, err
	}
	if o.kind == outcomePut {
		if recLen, rest, err = nextUvarint(rest); err != nil {
			return o, nil, err
		}
	}
	if keyLen > uint64(len(rest)) || recLen > uint64(len(rest))-keyLen {
		return o, nil, errPiece
	}
	o.key = string(rest[:keyLen])
	rest = rest[keyLen:]
	if o.kind == outcomePut {
		o.record = rest[:recLen:recLen]
	}
	valid := validKey
	if o.kind == outcomeName || o.kind == outcomeTag {
		valid = validName
	}
	if !valid(o.key) || o.kind == outcomePut && recLen < recordHeader+recordTrailer {
		return o, nil, errPiece
	}
	return o, rest[recLen:], nil
}

func nextUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errPiece
	}
	return v, b[n:], nil
}
