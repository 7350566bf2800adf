package format

import (
	"encoding/binary"
	"hash/crc32"
)

// Version is the version of the file's layout. A file of a newer one is refused.
const Version = 1

// The buckets of the file, and the keys of bucket meta. Numbers are big endian.
var (
	MetaBucket    = []byte("meta")
	BucketsBucket = []byte("buckets") // name -> id (8 bytes); its bbolt sequence is the highest id given out
	EntriesBucket = []byte("entries") // id (8 bytes) -> nested bucket: key -> index row (8 bytes) + record
	ExpiryBucket  = []byte("expiry")  // time (8 bytes) + id (8 bytes) + key -> empty
	UsageBucket   = []byte("usage")   // id (8 bytes) -> entries (8 bytes), bytes of their keys and records (8 bytes)

	// CostsBucket is not in every file: the first commit makes it.
	CostsBucket = []byte("costs") // id (8 bytes) -> bytes needed in the bucket and in the expiry index (8 each), check (4 bytes)

	// TagsBucket is not in every file: the first invalidation makes it. Its bbolt sequence is the number of rows.
	TagsBucket = []byte("tags") // tag -> revision at which it was invalidated (8 bytes)

	MetaFormat   = []byte("format")   // 4 bytes
	MetaIdentity = []byte("identity") // 16 random bytes
	MetaSequence = []byte("sequence") // 8 bytes: the commit mark, up to which the file contains every revision
	MetaTagFloor = []byte("tagfloor") // 8 bytes: every tag counts as invalidated at this revision; absent means 0
	MetaHighest  = []byte("highest")  // 8 bytes: the highest revision of anything in the file; absent means the mark
)

// The index row before a record says where the entry's one row in the expiry index stands: a time of 48
// bits, all ones for an entry without a lifetime, below 16 bits of a CRC-32C over these 8 bytes, with the
// upper 16 bits zero, and the key. It lies outside the record's checksum, because only the commit knows it.
const (
	RowSize = 8 // bytes
	rowMask = 1<<48 - 1

	UnknownRow = -1 // what a damaged index row says
)

// SplitRow takes the stored value of a key apart. The row is Never for an entry that has no expiry row, and
// UnknownRow if it is damaged: then only the record can say when the entry is gone.
func SplitRow(stored, key []byte) (row int64, record []byte) {
	switch {
	case stored == nil:
		return Never, nil
	case len(stored) < RowSize:
		return UnknownRow, stored
	}
	row, record = int64(binary.BigEndian.Uint64(stored)&rowMask), stored[RowSize:]
	switch {
	case binary.BigEndian.Uint16(stored) != rowSum(stored, key):
		row = UnknownRow
	case row == rowMask:
		row = Never
	}
	return row, record
}

// RecordIn returns the record of a stored value, which it is part of, without a look at its row; nil gives nil.
func RecordIn(stored []byte) []byte {
	if len(stored) < RowSize {
		return stored // SplitRow does the same
	}
	return stored[RowSize:]
}

// AppendRow is the inverse of SplitRow: it appends the stored value to dst.
func AppendRow(dst []byte, row int64, key, record []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, RowSize)...)
	PutRow(dst[at:], row, key)
	return append(dst, record...)
}

// PutRow puts the row of a stored value in front of its record.
func PutRow(stored []byte, row int64, key []byte) {
	binary.BigEndian.PutUint64(stored, uint64(min(row, rowMask)))
	binary.BigEndian.PutUint16(stored, rowSum(stored, key))
}

// JoinRow is AppendRow into a slice of its own.
func JoinRow(row int64, key, record []byte) []byte {
	return AppendRow(make([]byte, 0, RowSize+len(record)), row, key, record)
}

// rowSum returns the check of the row with which a stored value begins.
func rowSum(stored, key []byte) uint16 {
	return uint16(crc32.Update(crc32.Update(rowSeed, Castagnoli, stored[2:RowSize]), Castagnoli, key))
}

// rowSeed is the sum of the two bytes that are zero where a row is summed up.
var rowSeed = crc32.Update(0, Castagnoli, []byte{0, 0})

// StaleUntil reads when a stored record is gone without proving it. One that can say no such thing is gone
// long ago.
func StaleUntil(record []byte) int64 {
	if len(record) < HeaderSize+TrailerSize {
		return 0
	}
	gone := ReadHeader(record).StaleUntil
	if gone < 0 || gone > MaxDeadline && gone != Never {
		return 0
	}
	return gone
}

// ExpiryKey is the inverse of SplitExpiryKey.
func ExpiryKey(row int64, id uint64, key []byte) []byte {
	k := make([]byte, 0, 16+len(key))
	k = binary.BigEndian.AppendUint64(k, uint64(row))
	k = binary.BigEndian.AppendUint64(k, id)
	return append(k, key...)
}

// SplitExpiryKey takes a row of the expiry index apart. ok is false for a malformed one.
func SplitExpiryKey(k []byte) (row int64, id uint64, key []byte, ok bool) {
	if len(k) <= 16 {
		return 0, 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(k)), binary.BigEndian.Uint64(k[8:]), k[16:], true
}

// Uint64 returns n in 8 bytes, big endian.
func Uint64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// ReadUint64 reads what Uint64 wrote, and 0 from anything else.
func ReadUint64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// EntryKey names an entry: the id of its bucket, and its key.
type EntryKey struct {
	ID  uint64
	Key string
}
