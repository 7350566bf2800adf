// Package mutate damages bbolt files and the journals beside them in many ways, from single bits to meta pages that lie
// with a right checksum. It is for tests.
package mutate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// Victim is a file with its journal, and what both were like at an earlier time.
type Victim struct {
	File, Journal       []byte // Journal is empty where there is none
	OldFile, OldJournal []byte
}

// Damage damages a copy of v, which stays as it is, once or a few times, and says how.
func Damage(r *rand.Rand, v Victim) (damaged Victim, how string) {
	d := &damager{Rand: r, Victim: v}
	d.File, d.Journal = bytes.Clone(v.File), bytes.Clone(v.Journal)
	times := 1
	if r.IntN(4) == 0 {
		times += r.IntN(5)
	}
	for range times {
		d.once()
	}
	return d.Victim, d.how
}

type damager struct {
	*rand.Rand
	Victim
	how string
}

func (d *damager) note(format string, args ...any) { d.how += fmt.Sprintf(format, args...) + "; " }

func (d *damager) once() {
	if len(d.Journal) > 0 && d.IntN(4) == 0 {
		d.Journal = d.any("journal", d.Journal, d.OldJournal, 32<<10)
		return
	}
	if d.IntN(3) == 0 || d.meta() == nil {
		d.File = d.any("file", d.File, d.OldFile, 4<<10)
		return
	}
	kinds := []func(){d.header, d.element, d.element, d.element, d.metaField, d.metaField, d.list, d.bucket, d.cycle,
		d.value, d.stray, d.number, d.number}
	kinds[d.IntN(len(kinds))]()
}

// any damages bytes of which nothing is known but the size of their blocks.
func (d *damager) any(what string, b, old []byte, block int) []byte {
	if len(b) < 2*block {
		block = max(len(b)/2, 1)
	}
	if len(b) < 16 {
		return b
	}
	at := d.IntN(len(b))
	n := min(1<<d.IntN(14), len(b)-at)
	blocks := len(b) / block
	x, y := d.IntN(blocks)*block, d.IntN(blocks)*block
	switch d.IntN(11) {
	case 0, 1:
		for range 1 + d.IntN(8) {
			b[d.IntN(len(b))] ^= 1 << d.IntN(8)
		}
		d.note("%s: bits", what)
	case 2:
		clear(b[at : at+n])
		d.note("%s: zeros at %d+%d", what, at, n)
	case 3:
		d.noise(b[at : at+n])
		d.note("%s: noise at %d+%d", what, at, n)
	case 4:
		mine := bytes.Clone(b[x : x+block])
		copy(b[x:], b[y:y+block])
		copy(b[y:], mine)
		d.note("%s: %d and %d swapped", what, x, y)
	case 5:
		copy(b[x:x+block], b[y:y+block])
		d.note("%s: %d copied to %d", what, y, x)
	case 6:
		if d.IntN(2) == 0 {
			at = x
		}
		d.note("%s: cut to %d", what, at)
		return b[:at]
	case 7:
		more := make([]byte, 1<<d.IntN(17))
		if d.IntN(2) == 0 {
			d.noise(more)
		}
		d.note("%s: longer by %d", what, len(more))
		return append(b, more...)
	case 8, 9:
		if x+block <= len(old) {
			copy(b[x:x+block], old[x:x+block])
			d.note("%s: %d as it was", what, x)
		}
	case 10:
		if d.IntN(4) == 0 && len(old) > 0 {
			d.note("%s: all as it was", what)
			return bytes.Clone(old)
		}
		b[at] = byte(d.Uint32())
		d.note("%s: byte %d", what, at)
	}
	return b
}

func (d *damager) noise(b []byte) {
	for i := range b {
		b[i] = byte(d.Uint32())
	}
}

// The layout of bbolt's pages, see internal/preflight.
const (
	pageHeader = 16
	metaSize   = 64
	element    = 16
)

var native = binary.NativeEndian

func (d *damager) pageSize() int {
	if len(d.File) < 80 {
		return 0
	}
	n := int(native.Uint32(d.File[pageHeader+8:]))
	if n < 1024 || n > 1<<16 || n&(n-1) != 0 || len(d.File) < 4*n {
		return 0
	}
	return n
}

// meta returns the newer meta page, without its page header, or nil.
func (d *damager) meta() []byte {
	n := d.pageSize()
	if n == 0 {
		return nil
	}
	a, b := d.File[pageHeader:pageHeader+metaSize], d.File[n+pageHeader:n+pageHeader+metaSize]
	if native.Uint64(b[48:]) > native.Uint64(a[48:]) {
		return b
	}
	return a
}

// page returns a page of the file, in most cases one that looks like a leaf or a branch with elements.
func (d *damager) page() (id int, page []byte) {
	n := d.pageSize()
	for try := range 50 {
		id = 2 + d.IntN(len(d.File)/n-2)
		page = d.File[id*n : (id+1)*n]
		flags, count := native.Uint16(page[8:]), int(native.Uint16(page[10:]))
		if (flags == 1 && try < 40 || flags == 2) && count > 0 && pageHeader+count*element <= n {
			break
		}
	}
	return id, page
}

// hostile returns a number that is likely to do harm.
func (d *damager) hostile(now uint64, bits int) uint64 {
	pages := uint64(len(d.File) / d.pageSize())
	all := uint64(math.MaxUint64) >> (64 - bits)
	few := []uint64{
		0, 1, 2, 3, now + 1, now - 1, now << 1, now >> 1, now ^ 1<<d.IntN(bits), all, all - 1, all >> 1, all>>1 + 1,
		pages, pages - 1, pages + 1, uint64(d.pageSize()), uint64(d.pageSize() - 1), d.Uint64N(pages), d.Uint64N(pages),
		d.Uint64N(pages),
		d.Uint64N(1 << 16), d.Uint64(), 0xFFFF, 0x8000, 1 << 31, 1 << 32,
	}
	return few[d.IntN(len(few))] & all
}

func (d *damager) put16(b []byte) {
	native.PutUint16(b, uint16(d.hostile(uint64(native.Uint16(b)), 16)))
}
func (d *damager) put32(b []byte) {
	native.PutUint32(b, uint32(d.hostile(uint64(native.Uint32(b)), 32)))
}
func (d *damager) put64(b []byte) { native.PutUint64(b, d.hostile(native.Uint64(b), 64)) }

// header changes a field in the header of a page.
func (d *damager) header() {
	id, page := d.page()
	switch d.IntN(5) {
	case 0:
		d.put64(page)
		d.note("page %d: number %d", id, native.Uint64(page))
	case 1:
		native.PutUint16(page[8:], []uint16{0, 1, 2, 3, 4, 0x10, 0x11, 0x12, 0xffff}[d.IntN(9)])
		d.note("page %d: type %#x", id, native.Uint16(page[8:]))
	case 2, 3:
		d.put16(page[10:])
		d.note("page %d: count %d", id, native.Uint16(page[10:]))
	case 4:
		d.put32(page[12:])
		d.note("page %d: overflow %d", id, native.Uint32(page[12:]))
	}
}

// elementOf returns an element of a page.
func (d *damager) elementOf(page []byte) (i int, raw []byte) {
	count := min(max(int(native.Uint16(page[10:])), 1), (len(page)-pageHeader)/element)
	i = d.IntN(count)
	return i, page[pageHeader+i*element : pageHeader+(i+1)*element]
}

// element changes a field of an element of a page.
func (d *damager) element() {
	id, page := d.page()
	i, raw := d.elementOf(page)
	at := 4 * d.IntN(4)
	if native.Uint16(page[8:]) == 1 && at >= 8 {
		d.put64(raw[8:])
	} else {
		d.put32(raw[at:])
	}
	d.note("page %d: element %d: field at %d", id, i, at)
}

// metaField changes a field of a meta page and gives it the right checksum.
func (d *damager) metaField() {
	meta := d.meta()
	if d.IntN(4) == 0 { // the other one
		n := d.pageSize()
		if a := d.File[pageHeader : pageHeader+metaSize]; &a[0] != &meta[0] {
			meta = a
		} else {
			meta = d.File[n+pageHeader : n+pageHeader+metaSize]
		}
	}
	at := []int{8, 16, 16, 24, 32, 32, 32, 40, 40, 48, 48}[d.IntN(11)]
	if at == 8 {
		native.PutUint32(meta[8:], []uint32{0, 1, 512, 1024, 2048, 8192, 16384, 65536, 1 << 24, math.MaxUint32}[d.IntN(10)])
	} else if at == 32 && d.IntN(3) == 0 {
		native.PutUint64(meta[32:], math.MaxUint64) // no list
	} else {
		d.put64(meta[at:])
	}
	d.note("meta: field at %d is %d", at, native.Uint64(meta[at:]))
	reseal(meta)
}

func reseal(meta []byte) {
	sum := fnv.New64a()
	sum.Write(meta[:56])
	native.PutUint64(meta[56:], sum.Sum64())
}

// list changes the list of free pages.
func (d *damager) list() {
	meta, n := d.meta(), d.pageSize()
	id := native.Uint64(meta[32:])
	if id >= uint64(len(d.File)/n) {
		// There is none: any page is said to be it.
		native.PutUint64(meta[32:], d.Uint64N(uint64(len(d.File)/n)))
		reseal(meta)
		d.note("list: page %d", native.Uint64(meta[32:]))
		return
	}
	page := d.File[int(id)*n : (int(id)+1)*n]
	count := int(native.Uint16(page[10:]))
	switch d.IntN(3) {
	case 0:
		d.put16(page[10:])
		d.note("list: count %d", native.Uint16(page[10:]))
	case 1:
		at := pageHeader + 8*d.IntN(max(1, min(count, n/8-3)))
		d.put64(page[at:])
		d.note("list: %d at %d", native.Uint64(page[at:]), at)
	case 2: // one more, which is in use
		if pageHeader+8*count+8 <= n {
			native.PutUint64(page[pageHeader+8*count:], 2+d.Uint64N(uint64(len(d.File)/n-2)))
			native.PutUint16(page[10:], uint16(count+1))
			d.note("list: one more")
		}
	}
}

// leafElement returns an element of a leaf for which is holds, with its key and value; nil if it finds none.
func (d *damager) leafElement(is func(flags uint32) bool) (page, raw, key, value []byte) {
	for range 200 {
		_, page = d.page()
		if native.Uint16(page[8:]) != 2 {
			continue
		}
		i, raw := d.elementOf(page)
		at := pageHeader + i*element + int(native.Uint32(raw[4:]))
		k, v := int(native.Uint32(raw[8:])), int(native.Uint32(raw[12:]))
		if at < 0 || k < 0 || v < 0 || at+k > len(page) || at+k+v > len(page) || !is(native.Uint32(raw)) {
			continue
		}
		return page, raw, page[at : at+k], page[at+k : at+k+v]
	}
	return nil, nil, nil, nil
}

// bucket changes the header of a bucket, or what lies within its element.
func (d *damager) bucket() {
	_, _, key, value := d.leafElement(func(flags uint32) bool { return flags == 1 })
	if len(value) < 16 {
		return
	}
	switch at := d.IntN(4); {
	case at == 0:
		d.put64(value)
		d.note("bucket %q: root %d", key, native.Uint64(value))
	case at == 1:
		d.put64(value[8:])
		d.note("bucket %q: sequence", key)
	case len(value) >= 32 && at == 2:
		d.put16(value[16+10:])
		d.note("bucket %q: inner count", key)
	case len(value) >= 48 && at == 3:
		d.put32(value[32+4*d.IntN(4):])
		d.note("bucket %q: inner element", key)
	}
}

// cycle has a branch or a bucket lead to another page of the same file.
func (d *damager) cycle() {
	n := d.pageSize()
	if d.IntN(2) == 0 {
		_, _, key, value := d.leafElement(func(flags uint32) bool { return flags == 1 })
		if len(value) >= 16 {
			native.PutUint64(value, d.Uint64N(uint64(len(d.File)/n)))
			d.note("bucket %q leads to page %d", key, native.Uint64(value))
		}
		return
	}
	for range 200 {
		id, page := d.page()
		if native.Uint16(page[8:]) == 1 {
			i, raw := d.elementOf(page)
			native.PutUint64(raw[8:], d.Uint64N(uint64(len(d.File)/n)))
			d.note("page %d: child %d is page %d", id, i, native.Uint64(raw[8:]))
			return
		}
	}
}

// value changes what is stored under a key, or puts it under another.
func (d *damager) value() {
	page, _, key, value := d.leafElement(func(flags uint32) bool { return flags == 0 })
	if len(value) == 0 {
		return
	}
	if d.IntN(2) == 0 {
		value[d.IntN(len(value))] ^= 1 << d.IntN(8)
		d.note("value of %q: a bit", key)
		return
	}
	for range 20 {
		_, _, other, theirs := d.leafElement(func(flags uint32) bool { return flags == 0 })
		if len(theirs) == len(value) && &theirs[0] != &value[0] {
			copy(value, theirs)
			d.note("value of %q under %q", other, key)
			return
		}
	}
	_ = page
}

// number changes a value that is a number or two, such as a table or the cache itself have them.
func (d *damager) number() {
	for range 50 {
		_, _, key, value := d.leafElement(func(uint32) bool { return true })
		inner, name := d.inner(value)
		if inner != nil {
			key, value = name, inner
		}
		if len(value) == 8 || len(value) == 16 {
			at := 8 * d.IntN(len(value)/8)
			binary.BigEndian.PutUint64(value[at:], d.hostile(binary.BigEndian.Uint64(value[at:]), 64))
			d.note("number at %d of %q", at, key)
			return
		}
	}
}

// inner returns the value and the key of an element of a bucket that lies within its element, or nil.
func (d *damager) inner(value []byte) (inner, key []byte) {
	if len(value) < 48 || native.Uint64(value) != 0 || native.Uint16(value[16+8:]) != 2 {
		return nil, nil
	}
	page := value[16:]
	i, raw := d.elementOf(page)
	at := pageHeader + i*element + int(native.Uint32(raw[4:]))
	k, v := int(native.Uint32(raw[8:])), int(native.Uint32(raw[12:]))
	if at < 0 || k < 0 || v < 0 || at+k > len(page) || at+k+v > len(page) {
		return nil, nil
	}
	return page[at+k : at+k+v], page[at : at+k]
}

// stray changes a byte of a key.
func (d *damager) stray() {
	_, _, key, _ := d.leafElement(func(uint32) bool { return true })
	if len(key) > 0 {
		key[d.IntN(len(key))] ^= 1 << d.IntN(8)
		d.note("key %q", key)
	}
}
