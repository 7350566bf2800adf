package powerloss_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/powerloss"
)

// damaged is the mark of a run that its file is damaged now. What becomes of that is one more operation of each writer:
// it takes away what only the file had.
type damaged struct {
	content []byte // of the file from now on
	first   []int  // of each writer the number of that operation
}

// asideMost is how many damaged files are kept, and one more from when a fresh file is in the place of the last one
// until the oldest is removed.
const asideMost = 3 + 1

// The layout of bbolt's meta pages, see internal/preflight.
const (
	metaMagic    = 0xED0CDAED
	metaAt       = 16
	metaPageSize = metaAt + 8
	metaRoot     = metaAt + 16
	metaEnd      = metaAt + 40 // the page behind the last one
	metaTxid     = metaAt + 48
	metaSum      = metaAt + 56
)

// newestMeta returns the meta page that is in force and the size of pages, or nil where there is none.
func newestMeta(file []byte) (meta []byte, size int) {
	native := binary.NativeEndian
	for n := range 2 {
		if len(file) < (n+2)*os.Getpagesize() {
			return meta, size
		}
		page := file[n*os.Getpagesize():]
		sum := fnv.New64a()
		sum.Write(page[metaAt:metaSum])
		if native.Uint32(page[metaAt:]) == metaMagic && native.Uint64(page[metaSum:]) == sum.Sum64() &&
			(meta == nil || native.Uint64(page[metaTxid:]) > native.Uint64(meta[metaTxid:])) {
			meta, size = page[:os.Getpagesize()], int(native.Uint32(page[metaPageSize:]))
		}
	}
	return meta, size
}

// damage returns the content of a file with damage that keeps everybody from opening it, but not from telling that it
// is a cache and which one, and says what it is; nil where there is nothing to be damaged. With cut it is always
// shorter.
func damage(r *rand.Rand, file []byte, cut bool) (damaged []byte, how string) {
	file = bytes.Clone(file)
	meta, size := newestMeta(file)
	if meta == nil {
		return nil, ""
	}
	root, end := int(binary.NativeEndian.Uint64(meta[metaRoot:])), int(binary.NativeEndian.Uint64(meta[metaEnd:]))
	end = min(end, len(file)/size)
	switch what := r.IntN(3); {
	case (cut || what == 0) && root+2 < end:
		return file[:size*(root+1+r.IntN(end-root-1))+r.IntN(size)], "it was cut short"
	case cut:
		return nil, ""
	case what == 1 && clearBucket(file, root*size, size):
		return file, "a page of a bucket was damaged"
	}
	file[metaSum] ^= 1
	file[size+metaSum] ^= 1
	return file, "both meta pages were damaged"
}

// clearBucket damages the first page of one of the buckets in the root at the given place. It reports whether there is
// one.
func clearBucket(file []byte, root, size int) bool {
	native := binary.NativeEndian
	for n := range int(native.Uint16(file[root+10:])) {
		element := file[root+16+16*n:]
		value := element[native.Uint32(element[4:])+native.Uint32(element[8:]):]
		if page := int(native.Uint64(value)) * size; page > 0 && page < len(file) {
			clear(file[page:][:16])
			return true
		}
	}
	return false
}

// damage damages the file of a state, if there is one, and returns what may be expected of it then.
func (b bounds) damage(r *rand.Rand, s *powerloss.State) bounds {
	content, _ := damage(r, s.Content(cacheName), false)
	if content == nil {
		return b
	}
	s.Damage(cacheName, content)
	b.damaged = append(slices.Clone(b.damaged), content)
	b.loose = slices.Clone(b.most)
	for w := range b.loose {
		b.loose[w]++
	}
	return b
}

// harm damages the file of the run while nobody writes, and reports whether it did. See damage.
func (run *run) harm(t *testing.T, r *rand.Rand, cut bool) (did bool) {
	mark := damaged{}
	for _, w := range run.writers {
		mark.first = append(mark.first, len(w.digest))
	}
	require.NoError(t, run.recorder.Damage(cacheName, func(content []byte) []byte {
		mark.content, run.harmed = damage(r, content, cut)
		if did = mark.content != nil; !did {
			return content
		}
		if !cut {
			run.floor = run.revision
		}
		run.recorder.Mark(mark)
		return mark.content
	}))
	return did
}

// cutShort cuts the file short while the cache is open, and waits until a fresh one is in its place.
func (run *run) cutShort(t *testing.T, r *rand.Rand, db *keepcache.DB) {
	time.Sleep(3 * time.Second) // until nobody has anything to write: what expires is swept up to a second later
	before := db.Stats().Health
	if !run.harm(t, r, true) {
		return
	}
	for range 100 {
		if db.Stats().Health.Healed > before.Healed {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	h := db.Stats().Health
	require.Equal(t, before.Healed+1, h.Healed, "%+v", h)
	require.Equal(t, before.Quarantined+1, h.Quarantined, "%+v", h)
	run.survey(t, db, true)
}

// survey has each writer know what the cache has after its file was damaged, which is never more or something else than
// there was. unsure says that what is there may yet be lost, because the damaged file was all that kept it.
func (run *run) survey(t *testing.T, db *keepcache.DB, unsure bool) {
	for _, w := range run.writers {
		for name, state := range w.state {
			kept := map[string]entry{}
			for e, err := range db.Bucket(name).All() {
				require.NoError(t, err)
				if strings.HasPrefix(e.Key, "brief") {
					continue
				}
				var v any
				require.NoError(t, e.Decode(&v))
				was, ok := state[e.Key]
				require.True(t, ok, "%s in %s was not there", e.Key, name)
				require.Equal(t, was.value, fmt.Sprint(v))
				was.unsure = unsure
				kept[e.Key] = was
			}
			w.state[name] = kept
		}
		n := len(w.digest)
		w.did("%d: the file was damaged", n)
		run.recorder.Mark(acked{w.number, n})
	}
}

// checkRevisions requires that what was written to a fresh file has higher revisions than there were before.
func (run *run) checkRevisions(t *testing.T, db *keepcache.DB) {
	for _, w := range run.writers {
		for name := range w.state {
			for e, err := range db.Bucket(name).All() {
				require.NoError(t, err)
				require.Greater(t, e.Revision, run.floor, "%s in %s, after %s", e.Key, name, run.harmed)
				run.revision = max(run.revision, e.Revision)
			}
		}
	}
	run.floor = 0
}

// closed takes note that all is in the file.
func (run *run) closed() {
	for _, w := range run.writers {
		for _, state := range w.state {
			for key, e := range state {
				e.unsure = false
				state[key] = e
			}
		}
	}
}

// checkAside returns an error if a file was kept aside, or reported, that was not damaged, if one that was is not kept
// aside as it was, or if there are too many.
func (x *explorer) checkAside(b bounds, s *powerloss.State, path string, quarantined uint64, log string) (err error) {
	var now []byte // damaged, when the state was opened
	for _, content := range b.damaged {
		if s.Is(cacheName, content) {
			now = content
		}
	}
	told := uint64(0)
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "a file was quarantined") {
			err = errors.Join(err, fmt.Errorf("reported without a cause: %s", line))
		}
		told++
	}
	if want := uint64(min(len(now), 1)); told != want || quarantined != want {
		err = errors.Join(err, fmt.Errorf("the file was damaged %d times, but %d quarantines are reported and %d counted: %s", want, told, quarantined, log))
	}
	beside, globErr := filepath.Glob(path + "*")
	err = errors.Join(err, globErr)
	asides, kept := 0, false
	for _, name := range beside {
		switch base := filepath.Base(name); {
		case strings.Contains(name, ".corrupt-"):
			content, readErr := os.ReadFile(name)
			if readErr != nil || !slices.ContainsFunc(b.damaged, func(d []byte) bool { return bytes.Equal(content, d) }) {
				err = errors.Join(err, readErr, fmt.Errorf("%s has %d bytes that no damaged file had", base, len(content)))
			}
			kept = kept || bytes.Equal(content, now)
			asides++
		case strings.Contains(name, ".aside-"), strings.Contains(name, ".replaced-"):
			err = errors.Join(err, fmt.Errorf("%s was put aside", base))
		}
	}
	if now != nil {
		x.Damaged++
		if !kept {
			err = errors.Join(err, errors.New("the damaged file is gone"))
		}
	} else if asides > 0 {
		x.Fresh++
	}
	if asides > asideMost {
		err = errors.Join(err, fmt.Errorf("%d files are kept aside", asides))
	}
	return err
}
