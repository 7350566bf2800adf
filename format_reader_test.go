package keepcache_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
	bolt "go.etcd.io/bbolt"
)

// This is a reader of a cache's file and its journal that was written from docs/file-format.md alone. It uses nothing
// of the project, so that the page is all that somebody else needs. Whatever it meets that the page does not allow is
// an error.

// formatNever is the time of what has none.
const formatNever = math.MaxInt64

var formatCRC = crc32.MakeTable(crc32.Castagnoli)

// formatCache is what file and journal hold together.
type formatCache struct {
	identity []byte
	mark     uint64 // up to which the file has every revision
	highest  uint64
	tagFloor uint64
	names    map[string]uint64
	tags     map[string]uint64
	records  map[uint64]map[string][]byte // by id and key

	inFile     map[uint64]int // entries of each id in the file, without the journal
	costs      map[uint64]int64
	rows       int  // of the expiry index
	journal    int  // its version, 0 where there is none
	logRecords int  // of the journal that the file does not have
	cleanMark  bool // the file was closed in order
}

// formatEntry is one entry. Times are unix milliseconds, and Sliding is milliseconds.
type formatEntry struct {
	Bucket, Key                    string
	Value                          any // as encoding/json reads it, with numbers as they are written
	Size                           int
	Written, ExpiresAt, StaleUntil int64
	Loaded, RetryAt, Sliding       int64
	Revision, asOf                 uint64
	ETag                           string
	Tags                           []string
	Negative                       bool
	Live                           bool // else it is kept for GetOrLoad alone
}

var be, fle = binary.BigEndian, binary.LittleEndian

func malformed(format string, args ...any) error {
	return fmt.Errorf("not as the page says: "+format, args...)
}

// readFormat reads the cache at path.
func readFormat(path string) (*formatCache, error) {
	c := &formatCache{
		names: map[string]uint64{}, tags: map[string]uint64{}, records: map[uint64]map[string][]byte{},
		inFile: map[uint64]int{}, costs: map[uint64]int64{},
	}
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, err
	}
	err = db.View(c.readFile)
	pageSize := int64(db.Info().PageSize)
	if err = errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	if c.cleanMark, err = readCleanMark(path, pageSize); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(formatJournalPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	return c, c.readJournal(content)
}

// formatJournalPath says where the journal is.
func formatJournalPath(path string) string {
	const most = 255
	dir, name := filepath.Split(path)
	if len(name)+len("-journal") <= most {
		return path + "-journal"
	}
	sum := fmt.Sprintf("~%x", sha256.Sum256([]byte(name)))[:1+24]
	cut := most - len(sum) - len("-journal")
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return dir + name[:cut] + sum + "-journal"
}

// readCleanMark looks for the mark of a file that was closed in order.
func readCleanMark(path string, pageSize int64) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	pages := make([]byte, 2*pageSize)
	if _, err := io.ReadFull(f, pages); err != nil {
		return false, err
	}
	n := binary.NativeEndian
	older, newer := pages[:pageSize], pages[pageSize:]
	if n.Uint64(older[16+48:]) > n.Uint64(newer[16+48:]) { // the transaction id in bbolt's meta page
		older, newer = newer, older
	}
	mark := older[512 : 512+44]
	return string(mark[:8]) == "kcclean1" &&
		n.Uint64(mark[8:]) == n.Uint64(newer[16+48:]) &&
		n.Uint64(mark[16:]) == n.Uint64(newer[16+56:]) &&
		n.Uint64(mark[24:]) == uint64(info.Size()) &&
		n.Uint64(mark[32:]) == uint64(info.ModTime().UnixNano()) &&
		n.Uint32(mark[40:]) == crc32.Checksum(mark[:40], formatCRC), nil
}

// readFile reads the buckets of the database.
func (c *formatCache) readFile(tx *bolt.Tx) error {
	known := []string{"meta", "buckets", "entries", "expiry", "tags", "usage", "costs"}
	buckets := map[string]*bolt.Bucket{}
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if !slices.Contains(known, string(name)) {
			return malformed("bucket %q", name)
		}
		buckets[string(name)] = b
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range known {
		if buckets[name] == nil && name != "tags" && name != "costs" {
			return malformed("no bucket %q", name)
		}
	}
	if err := c.readMeta(buckets["meta"]); err != nil {
		return err
	}
	last := buckets["buckets"].Sequence()
	err = buckets["buckets"].ForEach(func(name, id []byte) error {
		if len(name) < 1 || len(name) > 255 || len(id) != 8 || be.Uint64(id) < 1 || be.Uint64(id) > last {
			return malformed("name %q of id %x, highest %d", name, id, last)
		}
		c.names[string(name)] = be.Uint64(id)
		return nil
	})
	if err != nil {
		return err
	}
	if b := buckets["tags"]; b != nil {
		err := b.ForEach(func(tag, revision []byte) error {
			if len(tag) < 1 || len(tag) > 255 || len(revision) != 8 {
				return malformed("tag %q: %x", tag, revision)
			}
			c.tags[string(tag)] = be.Uint64(revision)
			return nil
		})
		if err != nil {
			return err
		}
		if uint64(len(c.tags)) != b.Sequence() || len(c.tags) > 65_536 {
			return malformed("%d tags, sequence %d", len(c.tags), b.Sequence())
		}
	}
	return c.readEntries(buckets, last, int64(tx.DB().Info().PageSize))
}

func (c *formatCache) readMeta(b *bolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		sizes := map[string]int{"format": 4, "identity": 16, "sequence": 8, "highest": 8, "tagfloor": 8}
		if len(v) != sizes[string(k)] {
			return malformed("%q in meta: %x", k, v)
		}
		switch string(k) {
		case "format":
			if be.Uint32(v) != 1 {
				return malformed("format %d", be.Uint32(v))
			}
		case "identity":
			c.identity = bytes.Clone(v)
		case "sequence":
			c.mark = be.Uint64(v)
		case "highest":
			c.highest = be.Uint64(v)
		case "tagfloor":
			c.tagFloor = be.Uint64(v)
		}
		return nil
	})
}

// readEntries reads all records and proves index, usage and costs.
func (c *formatCache) readEntries(buckets map[string]*bolt.Bucket, last uint64, pageSize int64) error {
	rows := map[string]bool{}
	err := buckets["expiry"].ForEach(func(k, v []byte) error {
		if len(k) < 17 || len(v) != 0 {
			return malformed("expiry row %x: %x", k, v)
		}
		rows[string(k)] = true
		return nil
	})
	if err != nil {
		return err
	}
	c.rows = len(rows)
	type sums struct{ entries, bytes, inEntries, inExpiry int64 }
	counted := map[uint64]sums{}
	entries := buckets["entries"]
	err = entries.ForEach(func(k, v []byte) error {
		if len(k) != 8 || v != nil || be.Uint64(k) < 1 || be.Uint64(k) > last {
			return malformed("id %x", k)
		}
		id := be.Uint64(k)
		c.records[id] = map[string][]byte{}
		s := sums{}
		err := entries.Bucket(k).ForEach(func(key, v []byte) error {
			if len(key) < 1 || len(key) > 32_000 || len(v) < 8 {
				return malformed("entry %q", key)
			}
			rec := bytes.Clone(v[8:])
			staleUntil := int64(be.Uint64(rec[9:]))
			row, err := readIndexRow(v[:8], key)
			if err != nil {
				return err
			}
			switch {
			case staleUntil == formatNever:
				if row != formatNever {
					return malformed("entry %q has an expiry row and no end", key)
				}
			case row > staleUntil:
				return malformed("the row of entry %q is late: %d, gone at %d", key, row, staleUntil)
			default:
				at := string(append(be.AppendUint64(be.AppendUint64(nil, uint64(row)), id), key...))
				if !rows[at] {
					return malformed("entry %q has no expiry row", key)
				}
				delete(rows, at)
				s.inExpiry += formatCost(pageSize, int64(32+len(key)), int64(16+len(key)))
			}
			s.entries++
			s.bytes += int64(len(key) + len(rec))
			s.inEntries += formatCost(pageSize, int64(24+len(key)+len(rec)), int64(len(key)))
			c.records[id][string(key)] = rec
			return nil
		})
		counted[id], c.inFile[id] = s, int(s.entries)
		return err
	})
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		return malformed("%d expiry rows without an entry", len(rows))
	}
	for id, s := range counted {
		k := be.AppendUint64(nil, id)
		usage, costs := buckets["usage"].Get(k), buckets["costs"].Get(k)
		if s.entries == 0 && usage == nil {
			continue
		}
		want := be.AppendUint64(be.AppendUint64(nil, uint64(s.entries)), uint64(s.bytes))
		if !bytes.Equal(usage, want) {
			return malformed("usage of id %d: %x, and it has %x", id, usage, want)
		}
		want = be.AppendUint64(be.AppendUint64(nil, uint64(s.inEntries)), uint64(s.inExpiry))
		want = be.AppendUint32(want, crc32.Checksum(slices.Concat(k, usage, want), formatCRC))
		if !bytes.Equal(costs, want) {
			return malformed("costs of id %d: %x, and they are %x", id, costs, want)
		}
		c.costs[id] = s.inEntries + s.inExpiry
	}
	return nil
}

// readIndexRow returns where the expiry row of an entry stands, or never.
func readIndexRow(row, key []byte) (int64, error) {
	n := be.Uint64(row)
	at := n & (1<<48 - 1)
	sum := crc32.Update(crc32.Checksum(be.AppendUint64(nil, at), formatCRC), formatCRC, key)
	if uint64(sum&0xffff) != n>>48 {
		return 0, malformed("index row of %q: %x", key, row)
	}
	if at == 1<<48-1 {
		return formatNever, nil
	}
	return int64(at), nil
}

// formatCost is what an element of a leaf needs of a compacted file.
func formatCost(pageSize, n, key int64) int64 {
	element := func(n int64) (bytes, m int64) {
		if m = (pageSize*95/100 - 16) / n; m >= 2 {
			return (pageSize + m - 1) / m, m
		}
		return (2*n + 16 + pageSize - 1) / pageSize * pageSize / 2, 2
	}
	own, m := element(n)
	branch, c := element(16 + key)
	return own + branch*c/(c-1)/m
}

// formatJournal is a journal that is being read.
type formatJournal struct {
	content           []byte
	base              []byte // identity and nonce
	block, segment    int
	front             int // where segments begin
	flushed, released uint64
	blocks            [][]byte // by number
}

// readJournal puts what the journal has into the cache.
func (c *formatCache) readJournal(content []byte) error {
	j := &formatJournal{content: content}
	var h []byte
	for _, at := range []int{0, 8192} {
		if len(content) >= at+64 && string(content[at:at+8]) == "KCJRNL\r\n" &&
			fle.Uint32(content[at+60:]) == crc32.Checksum(content[at:at+60], formatCRC) {
			h = content[at : at+64]
			break
		}
	}
	if h == nil {
		return malformed("no head of a journal")
	}
	c.journal = int(fle.Uint32(h[8:]))
	j.block, j.segment = int(fle.Uint32(h[12:])), int(fle.Uint32(h[32:]))
	window := int(fle.Uint32(h[36:]))
	switch want := max(j.block, 4096); {
	case c.journal != 1 && c.journal != 2, c.journal == 1 && window != 0, c.journal == 2 && window != want,
		j.block < 512, j.block > 32768, j.block&(j.block-1) != 0, j.segment < j.block, j.segment > 1<<30,
		j.segment%j.block != 0,
		fle.Uint32(h[56:]) != 0:
		return malformed("head of the journal: %x", h)
	}
	if !bytes.Equal(h[16:32], c.identity) {
		return malformed("the journal is another cache's")
	}
	j.base = slices.Concat(h[16:32], h[48:56])
	j.front = 16384 + window
	j.flushed = fle.Uint64(h[40:])
	for at := j.front; at < len(content); at += j.block {
		b := make([]byte, j.block)
		copy(b, content[at:])
		j.blocks = append(j.blocks, b)
	}
	if window > 0 {
		j.overlay(content[16384 : 16384+j.block])
	}
	return j.logRecords(func(first, last uint64, logRecord []byte) error {
		if last > c.mark {
			c.logRecords++
		}
		return c.apply(first, last, logRecord)
	})
}

// salt is S(block, epoch).
func (j *formatJournal) salt(block int, epoch uint64) uint32 {
	b := fle.AppendUint64(fle.AppendUint64(bytes.Clone(j.base), uint64(block)), epoch)
	return crc32.Checksum(b, formatCRC)
}

// header returns the epoch of a block that has the number, and 0 if its header is not good.
func (j *formatJournal) header(b []byte, number int) uint64 {
	if string(b[4:8]) != "KJB1" || fle.Uint32(b) != crc32.Update(j.salt(number, 0), formatCRC, b[4:40]) {
		return 0
	}
	j.flushed, j.released = max(j.flushed, fle.Uint64(b[16:])), max(j.released, fle.Uint64(b[24:]))
	return fle.Uint64(b[8:])
}

// fragment returns the good fragment at the front of b, or a nil content.
func fragment(b []byte, salt uint32) (typ byte, content []byte) {
	if len(b) < 8 {
		return 0, nil
	}
	n := 8 + int(fle.Uint16(b[4:]))
	if n == 8 || n > len(b) || b[6] < 1 || b[6] > 4 || b[7] != 0 ||
		fle.Uint32(b) != crc32.Update(salt, formatCRC, b[4:n]) {
		return 0, nil
	}
	return b[6], b[8:n]
}

// whole returns how far whole fragments go in a block.
func (j *formatJournal) whole(b []byte, number int, epoch uint64) int {
	off := 40
	for {
		_, content := fragment(b[off:], j.salt(number, epoch))
		if content == nil {
			return off
		}
		off += 8 + len(content)
	}
}

// overlay puts the window in the place of the block that it is a copy of, if it has more.
func (j *formatJournal) overlay(window []byte) {
	for number, b := range j.blocks {
		epoch := j.header(window, number)
		if epoch == 0 {
			continue
		}
		own := j.header(b, number)
		if own < epoch || own == epoch && j.whole(b, number, epoch) < j.whole(window, number, epoch) {
			j.blocks[number] = window
		}
		return
	}
}

// log records calls fn for each log record, in the order in which they were written.
func (j *formatJournal) logRecords(fn func(first, last uint64, logRecord []byte) error) error {
	each := j.segment / j.block
	epochs := map[uint64]int{} // of segments, to their first block
	for from := 0; from < len(j.blocks); from += each {
		var epoch uint64
		for n := from; n < min(from+each, len(j.blocks)); n++ {
			epoch = max(epoch, j.header(j.blocks[n], n))
		}
		if epoch > 0 {
			epochs[epoch] = from
		}
	}
	var order []uint64
	for epoch := range epochs {
		order = append(order, epoch)
	}
	slices.Sort(order)
	var logRecord, head []byte
	var last uint64
	for _, epoch := range order {
		for n := epochs[epoch]; n < min(epochs[epoch]+each, len(j.blocks)); n++ {
			b := j.blocks[n]
			if j.header(b, n) != epoch {
				continue // a leftover, or not used yet
			}
			for off := 40; len(b)-off >= 36 || head != nil && len(b)-off >= 8; {
				typ, content := fragment(b[off:], j.salt(n, epoch))
				if content == nil {
					if rest := b[off : off+8]; !bytes.Equal(rest, make([]byte, 8)) {
						return malformed("a bad fragment %x in block %d", rest, n)
					}
					break
				}
				off += 8 + len(content)
				if typ <= 2 {
					if head != nil {
						return malformed("a log record begins within another")
					}
					j.flushed = max(j.flushed, fle.Uint64(content[16:]))
					head, logRecord = content[:28], bytes.Clone(content[28:])
				} else if head == nil {
					continue // the rest of a log record whose beginning was used anew
				} else {
					logRecord = append(logRecord, content...)
				}
				if typ == 2 || typ == 3 {
					if off != len(b) {
						return malformed("a fragment that is not the last ends within its block")
					}
					continue
				}
				first := fle.Uint64(head)
				if first <= last || fle.Uint64(head[8:]) < first || int(fle.Uint32(head[24:])) != len(logRecord) {
					return malformed("log record %x of %d bytes after revision %d", head, len(logRecord), last)
				}
				last = fle.Uint64(head[8:])
				if err := fn(first, last, logRecord); err != nil {
					return err
				}
				head = nil
			}
		}
	}
	if head != nil || j.flushed > last && len(order) > 0 {
		return malformed("the journal ends early: revision %d, flushed %d", last, j.flushed)
	}
	return nil
}

// apply puts the operations of a log record into the cache.
func (c *formatCache) apply(first, last uint64, logRecord []byte) error {
	number := func() uint64 {
		v, n := binary.Uvarint(logRecord)
		logRecord = logRecord[max(n, 0):]
		return v
	}
	take := func(n uint64) []byte {
		n = min(n, uint64(len(logRecord)))
		b := logRecord[:n]
		logRecord = logRecord[n:]
		return b
	}
	for revision := first; ; revision++ {
		if len(logRecord) == 0 {
			if revision != last+1 {
				return malformed("operations up to %d in a log record up to %d", revision-1, last)
			}
			return nil
		}
		kind := take(1)[0]
		id, n, m := number(), number(), uint64(0)
		if kind == 1 {
			m = number()
		}
		name, rec := string(take(n)), bytes.Clone(take(m))
		if uint64(len(name)) != n || uint64(len(rec)) != m || n == 0 {
			return malformed("operation %d of revision %d", kind, revision)
		}
		if revision <= c.mark {
			continue
		}
		c.highest = max(c.highest, revision)
		switch kind {
		case 1:
			if at := be.Uint64(rec[25:]); at != revision {
				return malformed("record of revision %d at %d", at, revision)
			}
			if c.records[id] == nil {
				c.records[id] = map[string][]byte{}
			}
			c.records[id][name] = rec
		case 2:
			delete(c.records[id], name)
		case 3:
			if c.names[name] = id; id == 0 {
				delete(c.names, name)
			}
		case 4:
			if id != 0 {
				return malformed("tag operation with id %d", id)
			}
			c.tags[name] = revision
		default:
			return malformed("operation %d", kind)
		}
	}
}

// kept returns the entries of all buckets that are not absent as of now, or may be served stale, or are negative, in
// the order of buckets and keys.
func (c *formatCache) kept(now time.Time) (all []formatEntry, err error) {
	for name, id := range c.names {
		for key, rec := range c.records[id] {
			e, err := openFormatRecord(name, key, rec)
			if err != nil {
				return nil, fmt.Errorf("entry %q of bucket %q: %w", key, name, err)
			}
			absent := now.UnixMilli() >= e.StaleUntil
			for _, tag := range e.Tags {
				absent = absent || max(c.tags[tag], c.tagFloor) >= e.asOf
			}
			if !absent {
				e.Live = now.UnixMilli() < e.ExpiresAt && !e.Negative
				e.asOf = 0
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b formatEntry) int {
		return strings.Compare(a.Bucket+"\x00"+a.Key, b.Bucket+"\x00"+b.Key)
	})
	return all, nil
}

// openFormatRecord takes a record apart.
func openFormatRecord(bucket, key string, rec []byte) (e formatEntry, err error) {
	if len(rec) < 39 || rec[0] != 1 {
		return e, malformed("record %x", rec[:min(len(rec), 39)])
	}
	body := rec[:len(rec)-4]
	sum := crc32.Checksum(slices.Concat([]byte{byte(len(bucket))}, []byte(bucket), []byte(key), body), formatCRC)
	if sum != be.Uint32(rec[len(body):]) {
		return e, malformed("checksum")
	}
	at := func(off int) int64 { return int64(be.Uint64(rec[off:])) }
	e = formatEntry{Bucket: bucket, Key: key, ExpiresAt: at(1), StaleUntil: at(9), Written: at(17),
		Revision: uint64(at(25))}
	e.asOf = e.Revision
	n := int(be.Uint16(rec[33:]))
	if e.StaleUntil < e.ExpiresAt || e.Revision == 0 || n > len(body)-35 {
		return e, malformed("record %x", rec[:35])
	}
	options := body[35 : 35+n]
	for len(options) > 0 {
		if len(options) < 3 || 3+int(be.Uint16(options[1:])) > len(options) {
			return e, malformed("options %x", options)
		}
		typ, data := options[0], options[3:3+int(be.Uint16(options[1:]))]
		options = options[3+len(data):]
		switch {
		case typ == 0x02 && len(data) == 8:
			e.Loaded = int64(be.Uint64(data))
		case typ == 0x03 && len(data) > 0:
			e.ETag = string(data)
		case typ == 0x04 && len(data) == 8:
			e.RetryAt = int64(be.Uint64(data))
		case typ == 0x05 && len(data) == 8:
			e.Sliding = int64(be.Uint64(data))
		case typ == 0x81 && len(data) == 0:
			e.Negative = true
		case typ == 0x82 && len(data) > 8:
			if asOf := be.Uint64(data); asOf != 0 {
				e.asOf = asOf
			}
			for data = data[8:]; len(data) > 0; data = data[1+int(data[0]):] {
				if int(data[0]) == 0 || int(data[0]) >= len(data) {
					return e, malformed("tags %x", data)
				}
				e.Tags = append(e.Tags, string(data[1:1+int(data[0])]))
			}
		default:
			return e, malformed("option %x: %x", typ, data)
		}
	}
	value := body[35+n:]
	e.Size = len(value)
	r := bytes.NewReader(value)
	e.Value, err = readFormatValue(msgpack.NewDecoder(r), 0)
	if err == nil && r.Len() > 0 {
		err = malformed("%d bytes behind the value", r.Len())
	}
	return e, err
}

// readFormatValue reads a value as encoding/json would read its text, with numbers as they are written.
func readFormatValue(d *msgpack.Decoder, depth int) (any, error) {
	code, err := d.PeekCode()
	if err != nil || depth > 1000 {
		return nil, errors.Join(err, malformed("value"))
	}
	number := func(text string, err error) (any, error) { return json.Number(text), err }
	float := func(f float64, bits int) (any, error) {
		text, err := json.Marshal(f)
		if bits == 32 {
			text, err = json.Marshal(float32(f))
		}
		if !bytes.ContainsAny(text, ".eE") && string(text) != "-0" { // which can be no integer
			text = append(text, ".0"...)
		}
		return number(string(text), err)
	}
	switch {
	case code == msgpcode.Nil:
		return nil, d.DecodeNil()
	case code == msgpcode.True, code == msgpcode.False:
		return d.DecodeBool()
	case msgpcode.IsString(code):
		return d.DecodeString()
	case msgpcode.IsBin(code):
		b, err := d.DecodeBytes()
		return base64.StdEncoding.EncodeToString(b), err
	case code == msgpcode.Float:
		f, err := d.DecodeFloat32()
		if err != nil {
			return nil, err
		}
		return float(float64(f), 32)
	case code == msgpcode.Double:
		f, err := d.DecodeFloat64()
		if err != nil {
			return nil, err
		}
		return float(f, 64)
	case msgpcode.IsExt(code):
		typ, n, err := d.DecodeExtHeader()
		if err != nil || typ != 78 || n > 1<<20 {
			return nil, errors.Join(err, malformed("ext %d", typ))
		}
		literal := make([]byte, n)
		err = d.ReadFull(literal)
		return number(string(literal), err)
	case code == msgpcode.Uint64:
		n, err := d.DecodeUint64()
		return number(fmt.Sprint(n), err)
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		n, err := d.DecodeArrayLen()
		list := make([]any, 0, max(n, 0))
		for i := 0; i < n && err == nil; i++ {
			var v any
			v, err = readFormatValue(d, depth+1)
			list = append(list, v)
		}
		return list, err
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		n, err := d.DecodeMapLen()
		object := make(map[string]any, max(n, 0))
		for i := 0; i < n && err == nil; i++ {
			var key string
			if key, err = d.DecodeString(); err == nil {
				object[key], err = readFormatValue(d, depth+1)
			}
		}
		return object, err
	}
	n, err := d.DecodeInt64()
	return number(fmt.Sprint(n), err)
}
