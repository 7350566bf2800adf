package preflight

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// randomLeaf makes a sound leaf, some of them empty and some with an overflow.
func randomLeaf(r *rand.Rand, pageSize int) []byte {
	keys := make([][]byte, r.IntN(12))
	for i := range keys {
		keys[i] = make([]byte, 1+r.IntN(5))
		for j := range keys[i] {
			keys[i][j] = byte(r.IntN(4))
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	keys = slices.CompactFunc(keys, bytes.Equal)
	page := make([]byte, pageHeader+len(keys)*elementSize)
	native.PutUint16(page[8:], flagLeaf)
	native.PutUint16(page[10:], uint16(len(keys)))
	for i, key := range keys {
		own := pageHeader + i*elementSize
		value := make([]byte, r.IntN(200))
		native.PutUint32(page[own+4:], uint32(len(page)-own))
		native.PutUint32(page[own+8:], uint32(len(key)))
		native.PutUint32(page[own+12:], uint32(len(value)))
		page = append(append(page, key...), value...)
	}
	page = append(page, make([]byte, -len(page)&(pageSize-1))...)
	native.PutUint32(page[12:], uint32(len(page)/pageSize-1))
	return page
}

// What the quick look accepts the careful one accepts, and it accepts all that is sound.
func TestPlain(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	sound, spoiled := 0, 0
	for range 100_000 {
		data := randomLeaf(r, leastPageSize)
		var first, next []byte
		if n := int(native.Uint16(data[10:])); n > 0 && r.IntN(2) == 0 {
			at := func(i int) []byte {
				own := pageHeader + i*elementSize
				key := data[own+int(native.Uint32(data[own+4:])):]
				return bytes.Clone(key[:native.Uint32(data[own+8:])])
			}
			first, next = at(0), append(at(n-1), 0)
			if r.IntN(4) == 0 {
				first = append(first, 0)
			}
			if r.IntN(4) == 0 {
				next = next[:len(next)-1]
			}
		}
		if r.IntN(2) == 0 {
			head := pageHeader + int(native.Uint16(data[10:]))*elementSize
			if at := 10 + r.IntN(head-10); r.IntN(2) == 0 {
				data[at] = byte(r.Uint32())
			} else {
				data[at] ^= 1 << r.IntN(8)
			}
		}
		f := &File{r: bytes.NewReader(data), size: int64(len(data)), pageSize: leastPageSize}
		native.PutUint64(f.meta[metaPages:], uint64(len(data)/leastPageSize))
		var p page
		if f.readPage(&p, 0, data[:leastPageSize]) != nil {
			continue
		}
		err := p.each(func(i int, e *element) error {
			if e.bucket {
				return damage(0, "element %d is a bucket", i)
			}
			return p.checkKey(i, e.key, first, next)
		})
		require.Equal(t, err == nil && p.count > 0, p.plain(first, next), "%v, %d elements\n%x", err, p.count, data)
		if err == nil {
			sound++
		} else {
			spoiled++
		}
	}
	require.Greater(t, sound, 10_000)
	require.Greater(t, spoiled, 10_000)
}
