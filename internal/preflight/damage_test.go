package preflight_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/preflight"
)

var native = binary.NativeEndian

const pageSize = 1 << 10

// patient is a file to be damaged.
type patient struct {
	t *testing.T
	b []byte
}

// newPatient makes a file with trees of three levels, inline and nested buckets, long values and free pages.
func newPatient(t testing.TB, listed bool) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, NoSync: true, NoFreelistSync: !listed})
	require.NoError(t, err)
	key := func(i int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 40), uint64(i))[:40] }
	for step := range 2 {
		require.NoError(t, db.Update(func(tx *bolt.Tx) error {
			plain, err := tx.CreateBucketIfNotExists([]byte("plain"))
			require.NoError(t, err)
			for i := range 500 {
				if step == 1 && i%50 < 40 {
					require.NoError(t, plain.Delete(key(i)))
				} else {
					require.NoError(t, plain.Put(key(i), make([]byte, 60)))
				}
			}
			require.NoError(t, plain.Put([]byte("long"), make([]byte, 200<<10)))
			index, err := tx.CreateBucketIfNotExists([]byte("index"))
			require.NoError(t, err)
			require.NoError(t, index.Put([]byte("a"), []byte("b")))
			require.NoError(t, index.Put([]byte("b"), []byte("c")))
			nested, err := tx.CreateBucketIfNotExists([]byte("nested"))
			require.NoError(t, err)
			for id := range 3 {
				in, err := nested.CreateBucketIfNotExists(key(id))
				require.NoError(t, err)
				for i := range 1 + id*100 {
					require.NoError(t, in.Put(key(i), make([]byte, 20)))
				}
			}
			return nil
		}))
	}
	require.NoError(t, db.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func (p *patient) page(id uint64) []byte { return p.b[id*pageSize : (id+1)*pageSize] }

// meta returns the newer meta page, and seal gives both their checksums.
func (p *patient) meta() []byte {
	a, b := p.b[16:80], p.b[pageSize+16:pageSize+80]
	if native.Uint64(b[48:]) > native.Uint64(a[48:]) {
		return b
	}
	return a
}

func seal(b []byte) {
	for _, at := range []int{16, pageSize + 16} {
		sum := fnv.New64a()
		sum.Write(b[at : at+56])
		native.PutUint64(b[at+56:], sum.Sum64())
	}
}

// element returns an element of a page and its key, and for a leaf its value.
func (p *patient) element(page []byte, i int) (raw, key, value []byte) {
	at := 16 + 16*i
	raw = page[at : at+16]
	if native.Uint16(page[8:]) == 1 {
		at += int(native.Uint32(raw))
		return raw, page[at : at+int(native.Uint32(raw[4:]))], nil
	}
	at += int(native.Uint32(raw[4:]))
	key = page[at : at+int(native.Uint32(raw[8:]))]
	at += len(key)
	return raw, key, page[at:min(len(page), at+int(native.Uint32(raw[12:])))]
}

// bucket returns the value of a bucket's element in a leaf.
func (p *patient) bucket(page []byte, name string) []byte {
	for i := range int(native.Uint16(page[10:])) {
		if _, key, value := p.element(page, i); bytes.HasPrefix(key, []byte(name)) {
			return value
		}
	}
	require.FailNow(p.t, "no bucket "+name)
	return nil
}

func (p *patient) root() []byte { return p.page(native.Uint64(p.meta()[16:])) }

// top returns the root page of bucket plain, a branch of branches, and low a branch of leaves, and leaf a leaf.
func (p *patient) top() []byte { return p.page(native.Uint64(p.bucket(p.root(), "plain"))) }

func (p *patient) low() []byte {
	raw, _, _ := p.element(p.top(), 1)
	low := p.page(native.Uint64(raw[8:]))
	require.Equal(p.t, uint16(1), native.Uint16(low[8:]))
	return low
}

func (p *patient) leaf() []byte {
	raw, _, _ := p.element(p.low(), 1)
	return p.page(native.Uint64(raw[8:]))
}

func (p *patient) list() []byte { return p.page(native.Uint64(p.meta()[32:])) }

// Each kind of damage is found, and named.
func TestCheck_Damage(t *testing.T) {
	id := func(b []byte) uint64 { return native.Uint64(b) }
	for name, c := range map[string]struct {
		damage func(p *patient)
		want   string
	}{
		"root beyond the file":  {func(p *patient) { native.PutUint64(p.meta()[16:], 1<<40) }, "the root is page"},
		"root is a meta page":   {func(p *patient) { native.PutUint64(p.meta()[16:], 1) }, "the root is page"},
		"pages beyond the file": {func(p *patient) { native.PutUint64(p.meta()[40:], 1<<50) }, "cut short"},
		"cut":                   {func(p *patient) { p.b = p.b[:len(p.b)/2] }, "cut short"},
		"list beyond the file": {func(p *patient) { native.PutUint64(p.meta()[32:], 1<<40) },
			"list of free pages is page"},
		"transaction at its end": {func(p *patient) { native.PutUint64(p.meta()[48:], math.MaxUint64) }, "transaction"},
		"page size zero":         {func(p *patient) { clear(p.b[24:28]) }, "pages of 0 bytes"},
		"odd page size":          {func(p *patient) { native.PutUint32(p.b[24:], 1025) }, "pages of 1025 bytes"},
		"two page sizes":         {func(p *patient) { native.PutUint32(p.meta()[8:], 2048) }, ""},
		"number":                 {func(p *patient) { p.leaf()[0]++ }, "it says that it is page"},
		"type":                   {func(p *patient) { p.leaf()[8] = 4 }, "of type 0x4"},
		"two types":              {func(p *patient) { p.leaf()[8] = 3 }, "of type 0x3"},
		"overflow":               {func(p *patient) { native.PutUint32(p.leaf()[12:], 1<<31) }, "overflow"},
		"overflow into another":  {func(p *patient) { native.PutUint32(p.root()[12:], 1) }, ""},
		"count":                  {func(p *patient) { native.PutUint16(p.leaf()[10:], 0xffff) }, "elements do not fit"},
		"empty leaf":             {func(p *patient) { clear(p.leaf()[10:12]) }, "empty leaf"},
		"empty branch":           {func(p *patient) { clear(p.low()[10:12]) }, "branch of 0"},
		"branch of one":          {func(p *patient) { native.PutUint16(p.low()[10:], 1) }, "branch of 1"},
		"flags of an element":    {func(p *patient) { p.leaf()[16] = 2 }, "has flags 0x2"},
		"position":               {func(p *patient) { native.PutUint32(p.leaf()[20:], 1<<31) }, "out of its place"},
		"position too early":     {func(p *patient) { native.PutUint32(p.leaf()[20:], 0) }, "out of its place"},
		"empty key":              {func(p *patient) { clear(p.leaf()[24:28]) }, "key of 0 bytes"},
		"key beyond the page":    {func(p *patient) { native.PutUint32(p.leaf()[24:], 2000) }, "out of its place"},
		"key of 4 GiB":           {func(p *patient) { native.PutUint32(p.leaf()[24:], math.MaxUint32) }, "a key of"},
		"value of 4 GiB":         {func(p *patient) { native.PutUint32(p.leaf()[28:], math.MaxUint32) }, "out of its place"},
		"value over the next":    {func(p *patient) { native.PutUint32(p.leaf()[28:], 61) }, "out of its place"},
		"order within a page": {func(p *patient) { _, key, _ := p.element(p.leaf(), 1); clear(key[:8]) },
			"not above the one before"},
		"twice the same key": {func(p *patient) {
			_, a, _ := p.element(p.leaf(), 0)
			_, b,
				_ := p.element(p.leaf(), 1)
			copy(b, a)
		}, "not above the one before"},
		"first key below": {func(p *patient) { _, key, _ := p.element(p.leaf(), 0); clear(key[:8]) },
			"not the one that its parent has"},
		"first key above": {func(p *patient) { _, key, _ := p.element(p.leaf(), 0); key[39]++ },
			"not the one that its parent has"},
		"last key above the next": {func(p *patient) {
			l := p.leaf()
			_, key,
				_ := p.element(l, int(native.Uint16(l[10:]))-1)
			key[1] = 1
		}, "not below the next"},
		"child beyond the file": {func(p *patient) { native.PutUint64(p.low()[24:], 1<<40) }, "it leads to page"},
		"child is a meta page":  {func(p *patient) { native.PutUint64(p.low()[24:], 1) }, "it leads to page 1"},
		"child is an ancestor":  {func(p *patient) { native.PutUint64(p.low()[24:], id(p.top())) }, "reached twice"},
		"child twice":           {func(p *patient) { copy(p.low()[24:32], p.low()[40:48]) }, "reached twice"},
		"child of another": {func(p *patient) { native.PutUint64(p.low()[24:], id(p.bucket(p.root(), "nested"))) },
			""},
		"bucket without a header": {func(p *patient) { raw, _, _ := p.element(p.root(), 1); native.PutUint32(raw[12:], 15) },
			"bucket of 15 bytes"},
		"bucket is no bucket":   {func(p *patient) { raw, _, _ := p.element(p.root(), 1); clear(raw[:4]) }, "is no bucket"},
		"a bucket among values": {func(p *patient) { p.leaf()[16] = 1 }, "is a bucket"},
		"a value among buckets": {func(p *patient) {
			p.page(id(p.bucket(p.root(), "nested")))[16] = 0
		}, "is no bucket"},
		"bucket leads to itself": {func(p *patient) {
			native.PutUint64(p.bucket(p.root(), "nested"), id(p.root()))
		}, "reached twice"},
		"inline, without room": {func(p *patient) { raw, _, _ := p.element(p.root(), 0); native.PutUint32(raw[12:], 20) },
			"bucket of 20 bytes"},
		"inline, another type":  {func(p *patient) { p.bucket(p.root(), "index")[16+8] = 1 }, "without a leaf"},
		"inline, with a number": {func(p *patient) { p.bucket(p.root(), "index")[16] = 7 }, "without a leaf"},
		"inline, count":         {func(p *patient) { p.bucket(p.root(), "index")[16+10] = 200 }, "elements do not fit"},
		"inline, key": {func(p *patient) { native.PutUint32(p.bucket(p.root(), "index")[16+16+8:], 500) },
			"out of its place"},
		"inline, order": {func(p *patient) { b := p.bucket(p.root(), "index"); b[len(b)-2] = 'a' },
			"not above the one before"},
		"inline, with a bucket": {func(p *patient) { p.bucket(p.root(), "index")[16+16] = 1 }, "a bucket within a bucket"},
		"list, number":          {func(p *patient) { p.list()[0]++ }, "it says that it is page"},
		"list, type":            {func(p *patient) { p.list()[8] = 2 }, "no list of free pages"},
		"list, overflow":        {func(p *patient) { native.PutUint32(p.list()[12:], 1<<31) }, "overflow"},
		"list, count":           {func(p *patient) { native.PutUint16(p.list()[10:], 5000) }, "do not fit"},
		"list, long count": {func(p *patient) {
			native.PutUint16(p.list()[10:], 0xffff)
			native.PutUint64(p.list()[16:],
				1<<63)
		}, "do not fit"},
		"list, page in use": {func(p *patient) { native.PutUint64(p.list()[16:], id(p.root())) }, ""},
		"list, meta page":   {func(p *patient) { native.PutUint64(p.list()[16:], 1) }, "free page 1"},
		"list, twice":       {func(p *patient) { copy(p.list()[24:32], p.list()[16:24]) }, "follows"},
		"list, beyond the file": {func(p *patient) {
			n := int(native.Uint16(p.list()[10:]))
			native.PutUint64(p.b[int(id(p.list()))*pageSize+8+8*n:], 1<<40)
		}, "free page"},
		"list is the root": {func(p *patient) { native.PutUint64(p.meta()[32:], id(p.root())) }, "no list of free pages"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &patient{t, newPatient(t, true)}
			require.NoError(t, check(p.b))
			c.damage(p)
			if len(p.b) > 2*pageSize {
				seal(p.b)
			}
			err := check(p.b)
			agree(t, p.b, err)
			var d *preflight.Damage
			require.ErrorAs(t, err, &d)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func check(b []byte) error {
	f, err := preflight.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	return f.Check(layout, math.MaxInt)
}

// Of two meta pages the newer whole one counts, as it does to bbolt; without any there is no database.
func TestOpen_Meta(t *testing.T) {
	whole := newPatient(t, true)
	newer := 0
	if native.Uint64(whole[pageSize+16+48:]) > native.Uint64(whole[16+48:]) {
		newer = 1
	}
	for name, c := range map[string]struct {
		spoiled []int
		want    error
	}{"none": {nil, nil}, "newer": {[]int{newer}, nil}, "older": {[]int{1 - newer}, nil},
		"both": {[]int{0, 1}, preflight.ErrNoDatabase}} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(whole)
			for _, slot := range c.spoiled {
				b[slot*pageSize+16+60] ^= 1
			}
			f, err := preflight.Open(bytes.NewReader(b), int64(len(b)))
			require.ErrorIs(t, err, c.want)
			if err != nil {
				return
			}
			require.Equal(t, pageSize, f.PageSize())
			path := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(path, b, 0o600))
			db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
			require.NoError(t, err)
			require.NoError(t, db.View(func(tx *bolt.Tx) error {
				require.Equal(t, uint64(tx.Size()/pageSize), f.Pages())
				return nil
			}))
			require.NoError(t, db.Close())
		})
	}
	for _, n := range []int{0, 1, 80, 1023, 1024, 2048, 4095} {
		_, err := preflight.Open(bytes.NewReader(whole[:n]), int64(n))
		require.ErrorIs(t, err, preflight.ErrNoDatabase)
	}
}

// failing is a file of which a part cannot be read.
type failing struct {
	*bytes.Reader
	from int64
}

var errDisk = errors.New("the disk failed")

func (f failing) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > f.from {
		return 0, errDisk
	}
	return f.Reader.ReadAt(p, at)
}

// A read that fails is no damage, and a file that ends early is.
func TestCheck_ReadError(t *testing.T) {
	b := newPatient(t, true)
	for at := 0; at < len(b); at += pageSize {
		f, err := preflight.Open(failing{bytes.NewReader(b), int64(at)}, int64(len(b)))
		if err == nil {
			err = f.Check(layout, math.MaxInt)
		}
		if err != nil { // what is free is not read
			require.ErrorIs(t, err, errDisk)
		}
		f, err = preflight.Open(bytes.NewReader(b[:at]), int64(len(b)))
		if err == nil {
			err = f.Check(layout, math.MaxInt)
		}
		var d *preflight.Damage
		if err != nil {
			require.ErrorAs(t, err, &d)
			require.NotErrorIs(t, err, io.EOF)
		}
	}
}

// Get reads what bbolt reads.
func TestFile_Get(t *testing.T) {
	b := newPatient(t, true)
	f, err := preflight.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	for key, want := range map[string]string{"a": "b", "b": "c"} {
		value, err := f.Get("index", key)
		require.NoError(t, err)
		require.Equal(t, want, string(value))
	}
	for i := range 500 {
		key := binary.BigEndian.AppendUint64(make([]byte, 0, 40), uint64(i))[:40]
		value, err := f.Get("plain", string(key))
		require.NoError(t, err)
		require.Equal(t, i%50 >= 40, value != nil, i)
	}
	for _, absent := range [][2]string{{"index", "c"}, {"no", "a"}, {"plain", "long"},
		{"nested", string(make([]byte, 40))}} {
		value, err := f.Get(absent[0], absent[1])
		require.NoError(t, err)
		require.Nil(t, value)
	}
}

// A mark holds until anything changes.
func TestFile_Mark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, newPatient(t, true), 0o600))
	now := time.Now().Truncate(preflight.MarkPrecision)
	clean := func(changed time.Time) bool {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		f, err := preflight.Open(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		clean, err := f.Clean(changed)
		require.NoError(t, err)
		return clean
	}
	mark := func() {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		info, err := file.Stat()
		require.NoError(t, err)
		f, err := preflight.Open(file, info.Size())
		require.NoError(t, err)
		require.NoError(t, f.Mark(file, now))
		require.NoError(t, file.Close())
	}
	commit := func(listed bool) {
		db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: !listed})
		require.NoError(t, err)
		require.NoError(t, db.Update(func(*bolt.Tx) error { return nil }))
		require.NoError(t, db.Close())
	}
	require.False(t, clean(now))
	mark()
	require.True(t, clean(now))
	require.NoError(t, checkFile(t, path))
	require.False(t, clean(now.Add(preflight.MarkPrecision)))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, info.Size()+1))
	require.False(t, clean(now), "longer")
	mark()
	require.True(t, clean(now))
	commit(true)
	require.False(t, clean(now), "after a transaction")
	mark()
	commit(true)
	commit(true)
	require.False(t, clean(now), "after two")
	commit(false)
	mark()
	require.False(t, clean(now), "without a list of free pages")
}

// storage is a file in memory that fails after some calls.
type storage struct {
	b     []byte
	calls int // that succeed
}

func (s *storage) WriteAt(p []byte, at int64) (int, error) {
	if s.calls--; s.calls < 0 {
		return 0, errDisk
	}
	if end := int(at) + len(p); end > len(s.b) {
		s.b = append(s.b, make([]byte, end-len(s.b))...)
	}
	return copy(s.b[at:], p), nil
}

func (s *storage) Sync() error {
	if s.calls--; s.calls < 0 {
		return errDisk
	}
	return nil
}

// A stored list is the one that bbolt would make, and a failure on the way leaves a sound file.
func TestFile_StoreList(t *testing.T) {
	whole := newPatient(t, false)
	for calls := range 6 {
		s := &storage{bytes.Clone(whole), calls}
		f, err := preflight.Open(bytes.NewReader(whole), int64(len(whole)))
		require.NoError(t, err)
		stored, err := f.StoreList(s)
		require.NoError(t, err)
		require.False(t, stored, "of a file that was not checked")
		require.NoError(t, f.Check(layout, math.MaxInt))
		stored, err = f.StoreList(s)
		require.Equal(t, calls >= 4, stored)
		require.Equal(t, !stored, err != nil)
		require.NoError(t, check(s.b))
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, s.b, 0o600))
		db, err := bolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() { // which reports pages that are neither in use nor free
				require.NoError(t, err)
			}
			return nil
		}))
		if stored {
			f, err = preflight.Open(bytes.NewReader(s.b), int64(len(s.b)))
			require.NoError(t, err)
			pages, listed := f.Free()
			require.True(t, listed)
			require.Equal(t, pages, db.Stats().FreePageN)
		}
		require.NoError(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("plain")).Put([]byte("k"), nil) }))
		require.NoError(t, db.Close())
		require.NoError(t, checkFile(t, path))
	}
}
