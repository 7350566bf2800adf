package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"unsafe"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/jsonpack"
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
// caught as well. What options there are is in options.go.
const (
	RecordVersion    = 1
	HeaderSize       = 35
	TrailerSize      = 4
	optionMustRefuse = 0x80
)

// TrustChecksums says that checksums are not looked at, for a test that has to fail then.
var TrustChecksums bool

// MaxKeyBytes and MaxNameBytes are how long a key, and the name of a bucket or a tag, can be, in bytes.
const (
	MaxKeyBytes  = 32_000
	MaxNameBytes = 255

	// MaxValueBytes keeps four values below the 2 GiB at which bbolt panics: it splits no page of four entries or less,
	// whatever their size.
	MaxValueBytes = 500 << 20
)

// ValidName reports whether a bucket or a tag can have a name.
func ValidName(name string) bool { return len(name) >= 1 && len(name) <= MaxNameBytes }

// ValidKey reports whether an entry can have a key.
func ValidKey(key string) bool { return len(key) >= 1 && len(key) <= MaxKeyBytes }

// Never is the deadline of what has none.
const Never = math.MaxInt64

// Castagnoli is the polynomial of all checksums of the file.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is what a record says of its value. Times are unix milliseconds.
type Header struct {
	ExpiresAt  int64
	StaleUntil int64
	WrittenAt  int64
	Revision   uint64
}

// AppendHeader starts a record in dst: everything before the value. The caller appends the value, and
// Seal then makes it whole.
func AppendHeader(dst []byte, h Header) []byte {
	dst = append(dst, RecordVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.ExpiresAt))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.StaleUntil))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.WrittenAt))
	dst = binary.BigEndian.AppendUint64(dst, h.Revision)
	return binary.BigEndian.AppendUint16(dst, 0)
}

// AppendTrailer leaves room for the checksum behind the value.
func AppendTrailer(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// BucketSum is the part of a record's checksum that depends on its bucket alone.
func BucketSum(name string) uint32 {
	buf := make([]byte, 0, 1+MaxNameBytes)
	buf = append(buf, byte(len(name)))
	buf = append(buf, name...)
	return crc32.Update(0, Castagnoli, buf)
}

// Seal stamps rec, which AppendHeader and AppendTrailer have framed, with its revision and its checksum.
func Seal(rec []byte, bucket uint32, key string, revision uint64) {
	binary.BigEndian.PutUint64(rec[25:], revision)
	body := len(rec) - TrailerSize
	binary.BigEndian.PutUint32(rec[body:], recordSum(rec[:body], bucket, key))
}

// The key is only read, so it need not be copied to become bytes.
func recordSum(body []byte, bucket uint32, key string) uint32 {
	k := unsafe.Slice(unsafe.StringData(key), len(key))
	return crc32.Update(crc32.Update(bucket, Castagnoli, k), Castagnoli, body)
}

var (
	errRecordShort    = errors.New("record is cut short")
	errRecordChecksum = errors.New("record fails its checksum")
	errRecordTimes    = errors.New("record is gone before it is stale")
	errRecordRevision = errors.New("record has no revision")
	errRecordOptions  = errors.New("record has malformed options")
)

// Open checks rec in full and takes it apart. The value points into rec.
func Open(rec []byte, bucket uint32, key string) (Header, []byte, error) {
	if len(rec) < HeaderSize+TrailerSize {
		return Header{}, nil, errRecordShort
	}
	if rec[0] != RecordVersion {
		return Header{}, nil, fmt.Errorf("record has unknown version %d", rec[0])
	}
	body := rec[:len(rec)-TrailerSize]
	if recordSum(body, bucket, key) != binary.BigEndian.Uint32(rec[len(body):]) && !TrustChecksums {
		return Header{}, nil, errRecordChecksum
	}
	h := ReadHeader(rec)
	switch {
	case h.StaleUntil < h.ExpiresAt:
		return Header{}, nil, errRecordTimes
	case h.Revision == 0:
		return Header{}, nil, errRecordRevision
	}
	if err := CheckOptions(body); err != nil {
		return Header{}, nil, err
	}
	return h, Value(rec), nil
}

// ReadHeader reads the header of a record whose checksum has been proved.
func ReadHeader(rec []byte) Header {
	return Header{
		ExpiresAt:  int64(binary.BigEndian.Uint64(rec[1:])),
		StaleUntil: int64(binary.BigEndian.Uint64(rec[9:])),
		WrittenAt:  int64(binary.BigEndian.Uint64(rec[17:])),
		Revision:   binary.BigEndian.Uint64(rec[25:]),
	}
}

// Value returns the value of a record whose checksum has been proved.
func Value(rec []byte) []byte {
	options := int(binary.BigEndian.Uint16(rec[33:]))
	return rec[HeaderSize+options : len(rec)-TrailerSize]
}

// CheckOptions walks the options of a record without its trailer.
func CheckOptions(body []byte) error {
	rest := body[HeaderSize:]
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

// Slide moves the times of a header so that the entry is fresh until a later time.
func (h *Header) Slide(until int64) {
	if until > h.ExpiresAt {
		h.StaleUntil = Prolong(h.StaleUntil, Between(h.ExpiresAt, until))
		h.ExpiresAt = until
	}
}

// OpenStored opens a record that comes from a file and proves its value. The error is errs.ErrCorrupt.
func OpenStored(rec []byte, sum uint32, key string) (Header, []byte, error) {
	h, value, err := Open(rec, sum, key)
	if err == nil {
		err = jsonpack.Scan(value)
	}
	if err != nil {
		return Header{}, nil, fmt.Errorf("%w: %w", errs.ErrCorrupt, err)
	}
	return h, value, nil
}
