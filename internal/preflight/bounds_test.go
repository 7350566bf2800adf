package preflight_test

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/preflight"
)

// A page is bound by what follows its parent as well.
func TestCheck_Cousins(t *testing.T) {
	lastKey := func(p *patient, branch []byte) []byte {
		raw, _, _ := p.element(branch, int(native.Uint16(branch[10:]))-1)
		leaf := p.page(native.Uint64(raw[8:]))
		_, key, _ := p.element(leaf, int(native.Uint16(leaf[10:]))-1)
		return key
	}
	for name, change := range map[string]func(last, next []byte){
		"above": func(last, next []byte) { copy(last, next); last[39]++ },
		"equal": func(last, next []byte) { copy(last, next) },
	} {
		t.Run(name, func(t *testing.T) {
			p := &patient{t, newPatient(t, true)}
			raw, _, _ := p.element(p.top(), 0)
			_, next, _ := p.element(p.top(), 1)
			change(lastKey(p, p.page(native.Uint64(raw[8:]))), next)
			require.ErrorContains(t, check(p.b), "not below the next")
		})
	}
}

// A bucket of values may not take the place of one of buckets.
func TestCheck_ValuesForBuckets(t *testing.T) {
	p := &patient{t, newPatient(t, true)}
	nested := p.page(native.Uint64(p.bucket(p.root(), "nested")))
	for i := range int(native.Uint16(nested[10:])) {
		raw, _, _ := p.element(nested, i)
		clear(raw[:4])
	}
	require.ErrorContains(t, check(p.b), "is no bucket")
}

// database builds a file page by page.
type database struct{ b []byte }

// add adds a page with overflow for what it holds, and returns its number.
func (d *database) add(flags uint16, elements [][]byte, raw func(i int, e []byte, at int)) uint64 {
	id := uint64(len(d.b) / pageSize)
	page := make([]byte, 16+16*len(elements))
	native.PutUint64(page, id)
	native.PutUint16(page[8:], flags)
	native.PutUint16(page[10:], uint16(len(elements)))
	for i, e := range elements {
		at := 16 + 16*i
		raw(i, page[at:at+16], len(page)-at)
		page = append(page, e...)
	}
	page = append(page, make([]byte, -len(page)&(pageSize-1))...)
	native.PutUint32(page[12:], uint32(len(page)/pageSize-1))
	d.b = append(d.b, page...)
	return id
}

// leaf adds a leaf with keys that have no values.
func (d *database) leaf(keys ...[]byte) uint64 {
	return d.add(2, keys, func(i int, e []byte, at int) {
		native.PutUint32(e[4:], uint32(at))
		native.PutUint32(e[8:], uint32(len(keys[i])))
	})
}

func (d *database) branch(keys [][]byte, children ...uint64) uint64 {
	return d.add(1, keys, func(i int, e []byte, at int) {
		native.PutUint32(e, uint32(at))
		native.PutUint32(e[4:], uint32(len(keys[i])))
		native.PutUint64(e[8:], children[i])
	})
}

// build makes a file of which a page that fill makes is the root of bucket plain.
func build(fill func(d *database) (root uint64)) []byte {
	d := &database{make([]byte, 2*pageSize)}
	in := append(native.AppendUint64(nil, fill(d)), make([]byte, 8)...)
	root := d.add(2, [][]byte{append([]byte("plain"), in...)}, func(_ int, e []byte, at int) {
		native.PutUint32(e, 1)
		native.PutUint32(e[4:], uint32(at))
		native.PutUint32(e[8:], 5)
		native.PutUint32(e[12:], 16)
	})
	for slot := range uint64(2) {
		page := d.b[slot*pageSize:]
		native.PutUint64(page, slot)
		native.PutUint16(page[8:], 4)
		meta := page[16:]
		native.PutUint32(meta, 0xED0CDAED)
		native.PutUint32(meta[4:], 2)
		native.PutUint32(meta[8:], pageSize)
		native.PutUint64(meta[16:], root)
		native.PutUint64(meta[32:], math.MaxUint64)
		native.PutUint64(meta[40:], uint64(len(d.b)/pageSize))
		native.PutUint64(meta[48:], slot)
	}
	seal(d.b)
	return d.b
}

// Keys have from 1 byte to 32 KiB, also where no other key is beside them.
func TestCheck_KeySize(t *testing.T) {
	for size, want := range map[int]string{0: "a key of 0 bytes", 1: "", 32768: "", 32769: "a key of 32769 bytes"} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := build(func(d *database) uint64 { return d.leaf(bytes.Repeat([]byte("k"), size)) })
			if want == "" {
				require.NoError(t, check(b))
				accepted(t, b)
				return
			}
			require.ErrorContains(t, check(b), want)
		})
	}
}

// A tree is equally deep everywhere. bbolt merges a small page with the one beside it and takes both for of one kind.
func TestCheck_Depth(t *testing.T) {
	key := func(i byte) []byte { return []byte{i} }
	for name, c := range map[string]struct {
		fill func(d *database) uint64
		want string
	}{
		"even": {func(d *database) uint64 {
			left := d.branch([][]byte{key(1), key(2)}, d.leaf(key(1)), d.leaf(key(2)))
			right := d.branch([][]byte{key(3), key(4)}, d.leaf(key(3)), d.leaf(key(4)))
			return d.branch([][]byte{key(1), key(3)}, left, right)
		}, ""},
		"deeper on the left": {func(d *database) uint64 {
			left := d.branch([][]byte{key(1), key(2)}, d.leaf(key(1)), d.leaf(key(2)))
			return d.branch([][]byte{key(1), key(3)}, left, d.leaf(key(3)))
		}, "not as deep"},
		"deeper on the right": {func(d *database) uint64 {
			right := d.branch([][]byte{key(3), key(4)}, d.leaf(key(3)), d.leaf(key(4)))
			return d.branch([][]byte{key(1), key(3)}, d.leaf(key(1)), right)
		}, "not as deep"},
		"deeper below a cousin": {func(d *database) uint64 {
			low := d.branch([][]byte{key(3), key(4)}, d.leaf(key(3)), d.leaf(key(4)))
			left := d.branch([][]byte{key(1), key(2)}, d.leaf(key(1)), d.leaf(key(2)))
			right := d.branch([][]byte{key(3), key(5)}, low, d.leaf(key(5)))
			return d.branch([][]byte{key(1), key(3)}, left, right)
		}, "not as deep"},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(c.fill)
			if c.want == "" {
				require.NoError(t, check(b))
				accepted(t, b)
				return
			}
			require.ErrorContains(t, check(b), c.want)
		})
	}
}

// Buckets may lie 16 deep in each other, but not deeper.
func TestCheck_Nesting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, NoSync: true})
	require.NoError(t, err)
	for depth := 1; depth <= 17; depth++ {
		require.NoError(t, db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("other"))
			for i := 1; i < depth && err == nil; i++ {
				b, err = b.CreateBucketIfNotExists([]byte("in"))
			}
			if err == nil {
				err = b.Put([]byte("k"), make([]byte, pageSize)) // too long for a page within a page
			}
			return err
		}))
		if err := checkFile(t, path); depth <= 16 {
			require.NoError(t, err, depth)
		} else {
			require.ErrorContains(t, err, "lie deeper than 16")
		}
	}
	require.NoError(t, db.Close())
}

// What is left out because it looks like leaves is proved when it is few enough.
func TestCheck_Most(t *testing.T) {
	p := &patient{t, newPatient(t, true)}
	leaf := p.leaf()
	leaf[16] = 2
	f, err := preflight.Open(bytes.NewReader(p.b), int64(len(p.b)))
	require.NoError(t, err)
	require.NoError(t, f.Check(layout, 0))
	require.NoError(t, f.Check(layout, 1))
	require.ErrorContains(t, f.Check(layout, math.MaxInt-1), "has flags 0x2")
	require.ErrorContains(t, f.Check(layout, math.MaxInt), "has flags 0x2")
	leaf[16] = 0
	p.low()[8] = 3
	require.ErrorContains(t, f.Check(layout, 0), "of type 0x3", "what leads on is proved in any case")
}
