package keepcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// formatVersion is the version of the file's layout. A file of a newer one is refused.
const formatVersion = 1

// The buckets of the file, and the keys of bucket meta. Numbers are big endian.
var (
	metaBucket    = []byte("meta")
	bucketsBucket = []byte("buckets") // name -> id (8 bytes); its bbolt sequence is the highest id given out
	entriesBucket = []byte("entries") // id (8 bytes) -> nested bucket: key -> index row (8 bytes) + record
	expiryBucket  = []byte("expiry")  // time (8 bytes) + id (8 bytes) + key -> empty
	usageBucket   = []byte("usage")   // id (8 bytes) -> entries (8 bytes), bytes of their keys and records (8 bytes)

	// costsBucket is not in every file: the first commit makes it.
	costsBucket = []byte("costs") // id (8 bytes) -> bytes needed in the bucket and in the expiry index (8 each), check (4 bytes)

	// tagsBucket is not in every file: the first invalidation makes it. Its bbolt sequence is the number of rows.
	tagsBucket = []byte("tags") // tag -> revision at which it was invalidated (8 bytes)

	metaFormat   = []byte("format")   // 4 bytes
	metaIdentity = []byte("identity") // 16 random bytes
	metaSequence = []byte("sequence") // 8 bytes: the commit mark, up to which the file contains every revision
	metaTagFloor = []byte("tagfloor") // 8 bytes: every tag counts as invalidated at this revision; absent means 0
	metaHighest  = []byte("highest")  // 8 bytes: the highest revision of anything in the file; absent means the mark
)

// The index row before a record says where the entry's one row in the expiry index stands: a time of 48
// bits, all ones for an entry without a lifetime, below 16 bits of a CRC-32C over these 8 bytes, with the
// upper 16 bits zero, and the key. It lies outside the record's checksum, because only the commit knows it.
const (
	rowSize = 8
	rowMask = 1<<48 - 1

	unknown = -1 // what a damaged index row says
)

// initFile writes the layout of an empty cache.
func initFile(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketsBucket, entriesBucket, expiryBucket, usageBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta, err := tx.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	identity := newIdentity()
	return errors.Join(
		meta.Put(metaFormat, binary.BigEndian.AppendUint32(nil, formatVersion)),
		meta.Put(metaIdentity, identity[:]),
		meta.Put(metaSequence, encodeUint64(0)),
	)
}

// usage is what the entries of one bucket amount to, expired ones that the sweeper has not reached included.
type usage struct {
	entries int64
	bytes   int64 // of keys and records
	leaf    int64 // bytes of the file that they need in their bucket
	row     int64 // bytes of the file that their rows need in the expiry index
	guessed bool  // the last two are an estimate: an older keepcache has changed the file
}

// cost is what entries need of the file, as budgets count it.
func (u usage) cost() int64 { return u.leaf + u.row }

func (u usage) plus(v usage) usage {
	return usage{u.entries + v.entries, u.bytes + v.bytes, u.leaf + v.leaf, u.row + v.row, u.guessed || v.guessed}
}

func (u usage) minus(v usage) usage {
	return usage{u.entries - v.entries, u.bytes - v.bytes, u.leaf - v.leaf, u.row - v.row, u.guessed || v.guessed}
}

// ledger gathers by how much a transaction changes the usage of each id, and which keys it changes where
// somebody wants to know. Each change of an entry or of its expiry row goes through it.
type ledger struct {
	page   paging
	deltas map[uint64]usage
	noted  *notes // nil where nobody wants to know
}

// newLedger returns an empty ledger for a transaction in a file with such pages.
func newLedger(page paging) *ledger { return &ledger{page: page, deltas: make(map[uint64]usage)} }

func (l *ledger) add(id uint64, key, record []byte) {
	l.deltas[id] = l.deltas[id].plus(l.page.of(key, record))
	l.note(id, key)
	if l.noted != nil {
		l.noted.bytes += int64(len(record))
	}
}

func (l *ledger) remove(id uint64, key, record []byte) {
	l.deltas[id] = l.deltas[id].minus(l.page.of(key, record))
	l.note(id, key)
}

// note says that a key has changed.
func (l *ledger) note(id uint64, key []byte) {
	if l.noted != nil {
		l.noted.add(id, key)
	}
}

// enter books what l has gathered.
func (l *ledger) enter(tx *bolt.Tx) error {
	t, err := openUsage(tx)
	for _, id := range slices.Sorted(maps.Keys(l.deltas)) { // or each new one would move all that came before it
		delta := l.deltas[id]
		if err != nil {
			return err
		}
		if delta != (usage{}) {
			err = t.put(id, t.get(id).plus(delta))
		}
	}
	return err
}

// notes are the keys that changed since a compaction last looked.
type notes struct {
	keys  map[noteKey]struct{}
	bytes int64 // of the records put under them
	most  int   // keys for which the next change waits until the compaction has looked

	looked chan struct{} // closed, and replaced, when it has
}

type noteKey struct {
	id  uint64
	key string
}

func newNotes(most int) *notes {
	return &notes{keys: make(map[noteKey]struct{}), most: most, looked: make(chan struct{})}
}

// look lets the changes go on that wait, if there are notes.
func (n *notes) look() {
	if n != nil {
		close(n.looked)
		n.looked = make(chan struct{})
		n.bytes = 0
	}
}

func (n *notes) add(id uint64, key []byte) { n.keys[noteKey{id, string(key)}] = struct{}{} }

// full reports whether a change has to wait.
func (n *notes) full() bool { return n != nil && (len(n.keys) >= n.most || n.bytes >= notesBytes) }

// splitRow takes the stored value of a key apart. The row is never for an entry that has no expiry row, and
// unknown if it is damaged: then only the record can say when the entry is gone.
func splitRow(stored, key []byte) (row int64, record []byte) {
	switch {
	case stored == nil:
		return never, nil
	case len(stored) < rowSize:
		return unknown, stored
	}
	row, record = int64(binary.BigEndian.Uint64(stored)&rowMask), stored[rowSize:]
	switch {
	case binary.BigEndian.Uint16(stored) != rowSum(stored, key):
		row = unknown
	case row == rowMask:
		row = never
	}
	return row, record
}

// recordIn returns the record of a stored value, which it is part of, without a look at its row; nil gives nil.
func recordIn(stored []byte) []byte {
	if len(stored) < rowSize {
		return stored // splitRow does the same
	}
	return stored[rowSize:]
}

// appendRow is the inverse of splitRow: it appends the stored value to dst.
func appendRow(dst []byte, row int64, key, record []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, rowSize)...)
	putRow(dst[at:], row, key)
	return append(dst, record...)
}

// putRow puts the row of a stored value in front of its record.
func putRow(stored []byte, row int64, key []byte) {
	binary.BigEndian.PutUint64(stored, uint64(min(row, rowMask)))
	binary.BigEndian.PutUint16(stored, rowSum(stored, key))
}

func joinRow(row int64, key, record []byte) []byte {
	return appendRow(make([]byte, 0, rowSize+len(record)), row, key, record)
}

// rowSum returns the check of the row with which a stored value begins.
func rowSum(stored, key []byte) uint16 {
	return uint16(crc32.Update(crc32.Update(rowSeed, castagnoli, stored[2:rowSize]), castagnoli, key))
}

// rowSeed is the sum of the two bytes that are zero where a row is summed up.
var rowSeed = crc32.Update(0, castagnoli, []byte{0, 0})

// dropRow takes the expiry row of an entry off the index. Where it is unknown, it most likely stands where it was
// put for the time the entry is gone, with one grain or another; if not, the sweeper will find it without an owner.
func dropRow(expiry *bolt.Bucket, row int64, id uint64, key, record []byte) error {
	switch row {
	case never:
		return nil
	case unknown:
	default:
		return expiry.Delete(expiryKey(row, id, key))
	}
	gone := goneAtOf(record)
	if gone == never {
		return nil
	}
	for grain := int64(1); grain <= rowGrain; grain *= 2 {
		if err := expiry.Delete(expiryKey(gone-gone%grain, id, key)); err != nil {
			return err
		}
	}
	return nil
}

// putSorted puts rows into the expiry index in their order, whatever theirs is. Most are later than all that are
// there, and come into one node: a slice, in which a row that is not the last one moves all that follow it.
func putSorted(expiry *bolt.Bucket, rows [][]byte) error {
	slices.SortFunc(rows, bytes.Compare)
	for _, row := range rows {
		if err := expiry.Put(row, nil); err != nil {
			return err
		}
	}
	return nil
}

// goneAtOf reads when a stored record is gone without proving it. One that can say no such thing is gone
// long ago.
func goneAtOf(record []byte) int64 {
	if len(record) < recordHeader+recordTrailer {
		return 0
	}
	gone := readHeader(record).goneAt
	if gone < 0 || gone > mostDeadline && gone != never {
		return 0
	}
	return gone
}

func expiryKey(row int64, id uint64, key []byte) []byte {
	k := make([]byte, 0, 16+len(key))
	k = binary.BigEndian.AppendUint64(k, uint64(row))
	k = binary.BigEndian.AppendUint64(k, id)
	return append(k, key...)
}

// splitExpiryKey takes a row of the expiry index apart. ok is false for a malformed one.
func splitExpiryKey(k []byte) (row int64, id uint64, key []byte, ok bool) {
	if len(k) <= 16 {
		return 0, 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(k)), binary.BigEndian.Uint64(k[8:]), k[16:], true
}

func encodeUint64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// decodeUint64 reads what encodeUint64 wrote, and 0 from anything else.
func decodeUint64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
