package keepcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"unsafe"
)

// A record is the sealed envelope around a value. Every tier keeps it as it is, and the format is frozen:
// a file written today opens for ever.
//
//	offset  bytes
//	0       1      version, 1
//	1       8      fresh until, unix milliseconds; never = MaxInt64
//	9       8      gone at, unix milliseconds, not before fresh until; never = MaxInt64
//	17      8      written at, unix milliseconds
//	25      8      revision, from 1
//	33      2      length of the options
//	35      n      options: each a type (1 byte), a length (2 bytes) and that many bytes
//	35+n    m      the value, as package jsonpack writes it
//	35+n+m  4      CRC-32C (Castagnoli, RFC 3720) over the length of the bucket's name (1 byte), the name,
//	               the key, and all of the record before it
//
// Numbers are big endian. An option whose type has its highest bit set must be understood: a reader that
// does not know it takes the record for damaged instead of misreading it. Other unknown options are kept
// out of the way. The checksum covers name and key so that a record that turns up in another place is
// caught as well. What options there are is in traits.go.
const (
	recordVersion    = 1
	recordHeader     = 35
	recordTrailer    = 4
	optionMustRefuse = 0x80
)

// never is the deadline of what has none.
const never = math.MaxInt64

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what a record says of its value. Times are unix milliseconds.
type header struct {
	freshUntil int64
	goneAt     int64
	written    int64
	revision   uint64
}

// appendHeader starts a record in dst: everything before the value. The caller appends the value, and
// sealRecord then makes it whole.
func appendHeader(dst []byte, h header) []byte {
	dst = append(dst, recordVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.freshUntil))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.goneAt))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.written))
	dst = binary.BigEndian.AppendUint64(dst, h.revision)
	return binary.BigEndian.AppendUint16(dst, 0)
}

// appendTrailer leaves room for the checksum behind the value.
func appendTrailer(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// nameSum is the part of a record's checksum that depends on its bucket alone.
func nameSum(name string) uint32 {
	buf := make([]byte, 0, 1+MaxNameBytes)
	buf = append(buf, byte(len(name)))
	buf = append(buf, name...)
	return crc32.Update(0, castagnoli, buf)
}

// sealRecord stamps rec, which appendHeader and appendTrailer have framed, with its revision and its checksum.
func sealRecord(rec []byte, bucket uint32, key string, revision uint64) {
	binary.BigEndian.PutUint64(rec[25:], revision)
	body := len(rec) - recordTrailer
	binary.BigEndian.PutUint32(rec[body:], recordSum(rec[:body], bucket, key))
}

// The key is only read, so it need not be copied to become bytes.
func recordSum(body []byte, bucket uint32, key string) uint32 {
	k := unsafe.Slice(unsafe.StringData(key), len(key))
	return crc32.Update(crc32.Update(bucket, castagnoli, k), castagnoli, body)
}

var (
	errRecordShort    = errors.New("record is cut short")
	errRecordChecksum = errors.New("record fails its checksum")
	errRecordTimes    = errors.New("record is gone before it is stale")
	errRecordRevision = errors.New("record has no revision")
	errRecordOptions  = errors.New("record has malformed options")
)

// openRecord checks rec in full and takes it apart. The value points into rec.
func openRecord(rec []byte, bucket uint32, key string) (header, []byte, error) {
	if len(rec) < recordHeader+recordTrailer {
		return header{}, nil, errRecordShort
	}
	if rec[0] != recordVersion {
		return header{}, nil, fmt.Errorf("record has unknown version %d", rec[0])
	}
	body := rec[:len(rec)-recordTrailer]
	if recordSum(body, bucket, key) != binary.BigEndian.Uint32(rec[len(body):]) && !without.checksum {
		return header{}, nil, errRecordChecksum
	}
	h := readHeader(rec)
	switch {
	case h.goneAt < h.freshUntil:
		return header{}, nil, errRecordTimes
	case h.revision == 0:
		return header{}, nil, errRecordRevision
	}
	if err := checkOptions(body); err != nil {
		return header{}, nil, err
	}
	return h, recordValue(rec), nil
}

// readHeader reads the header of a record whose checksum has been proved.
func readHeader(rec []byte) header {
	return header{
		freshUntil: int64(binary.BigEndian.Uint64(rec[1:])),
		goneAt:     int64(binary.BigEndian.Uint64(rec[9:])),
		written:    int64(binary.BigEndian.Uint64(rec[17:])),
		revision:   binary.BigEndian.Uint64(rec[25:]),
	}
}

// recordValue returns the value of a record whose checksum has been proved.
func recordValue(rec []byte) []byte {
	options := int(binary.BigEndian.Uint16(rec[33:]))
	return rec[recordHeader+options : len(rec)-recordTrailer]
}

// checkOptions walks the options of a record without its trailer.
func checkOptions(body []byte) error {
	rest := body[recordHeader:]
	n := int(binary.BigEndian.Uint16(body[33:]))
	if n > len(rest) {
		return errRecordOptions
	}
	for rest = rest[:n]; len(rest) > 0; {
		if len(rest) < 3 {
			return errRecordOptions
		}
		kind, size := rest[0], int(binary.BigEndian.Uint16(rest[1:]))
		if size > len(rest)-3 {
			return errRecordOptions
		}
		if err := checkOption(kind, rest[3:3+size]); err != nil {
			return err
		}
		rest = rest[3+size:]
	}
	return nil
}
