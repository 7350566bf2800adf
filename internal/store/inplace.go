package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/trust"
)

// An empty file is turned into a cache in place, and so is a damaged one that cannot be replaced. Meanwhile the file
// begins with one of these texts, padded with zeros to a sector, so a crash leaves either the text or what was there
// before. The pages are written behind it, then the second meta page, and the first one overwrites the text last. So an
// unfinished file is never taken for a finished one, and the next Open starts over. The texts are part of the file
// format.
const (
	initText   = "keepcache is making a cache of this file, and the next Open finishes that.\n"
	remakeText = "keepcache is making this file anew, because it was damaged, and the next Open finishes that.\n"

	// One of these follows remakeText: the name of a copy and a newline, or that there is none. Older versions wrote
	// neither.
	keptText = "What it had is in "
	lostText = "What it had could not be kept.\n"

	markerBytes = 512
)

var (
	ErrNotInitialized = fmt.Errorf("%w: it is empty", errs.ErrFormat)
	ErrHalfRemade     = fmt.Errorf("%w: a crash interrupted its replacement", errs.ErrCorrupt)
)

// Unfinished returns ErrNotInitialized for a file that is empty or was being initialized, and ErrHalfRemade for a
// damaged one that was being remade.
func Unfinished(f *os.File, size int64) error {
	if size == 0 {
		return ErrNotInitialized
	}
	text, err := beginningOf(f)
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(text, initText), size == markerBytes && text == "":
		return ErrNotInitialized // or the length of the text reached the disk, but not the text
	case strings.HasPrefix(text, remakeText):
		return ErrHalfRemade
	}
	return nil
}

// beginningOf returns the text at the beginning of a file, without the zeros behind it.
func beginningOf(f *os.File) (string, error) {
	b := make([]byte, markerBytes)
	n, err := disk.ReadAt(f, b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(string(b[:n]), "\x00"), nil
}

// remakeBegun reports whether the file was being remade when a crash came. f may be nil.
func remakeBegun(f *os.File) (bool, error) {
	if f == nil {
		return false, nil
	}
	info, err := f.Stat()
	if err == nil {
		err = Unfinished(f, info.Size())
	}
	return errors.Is(err, ErrHalfRemade), err
}

// initInPlace turns an empty or unfinished file into a cache. If there is a journal, the cache gets its identity.
func initInPlace(in *disk.Dir, path string, wait time.Duration) error {
	f, _, err := openOwned(in, path, os.O_RDWR, wait)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lockForInit(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := Unfinished(f, info.Size()); !errors.Is(err, ErrNotInitialized) {
		return err // another process was quicker
	}
	from, err := inherit(in, f, beside.Journal(path))
	if err != nil {
		return err
	}
	return makeInPlace(in, f, path, initText, from.write)
}

// makeInPlace turns f into a cache with what fill writes. The caller has locked f. text says why the file is made.
func makeInPlace(in *disk.Dir, f *os.File, path, text string, fill func(*bolt.Tx) error) error {
	image, size, page, drop, err := makeImage(in, path, fill)
	defer drop()
	if err != nil {
		return err
	}

	mark := make([]byte, markerBytes)
	copy(mark, text)
	if _, err := disk.WriteAt(f, mark, 0); err != nil {
		if text == initText {
			_ = disk.Truncate(f, 0) // the next Open would not recognise a part of the text
		}
		return err
	}
	if err := errors.Join(disk.Sync(f), disk.Truncate(f, markerBytes)); err != nil {
		return err
	}
	if err := copyRange(f, image, 2*page, size); err != nil {
		return err
	}
	if err := disk.Sync(f); err != nil {
		return err
	}
	for _, at := range []int64{page, 0} {
		if err := copyRange(f, image, at, at+page); err != nil {
			return err
		}
		if err := disk.Datasync(f); err != nil {
			return err
		}
	}
	return nil
}

// makeImage creates a cache beside the file at path, or in the directory for temporary files if that directory is not
// writable. It returns the file with its size and page size. drop removes it.
func makeImage(
	in *disk.Dir, path string, fill func(*bolt.Tx) error,
) (image *os.File, size, page int64, drop func(), err error) {
	image, name, err := createTemp(in, path, newSuffix)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		in = nil
		image, name, err = createTemp(in, tempPath(path), newSuffix)
	}
	if err != nil {
		return nil, 0, 0, func() {}, err
	}
	drop = func() {
		image.Close()
		in.Remove(name)
	}
	h, err := openHandle(name, false, copyReserve, time.Second, in.OpenFile)
	if err != nil {
		return image, 0, 0, drop, err
	}
	h.db.NoSync, h.db.NoGrowSync = true, true
	if err = h.update(fill); err == nil {
		h.db.NoFreelistSync = false // so that opening it need not search for free pages
		err = h.update(func(*bolt.Tx) error { return nil })
	}
	if err == nil {
		err = h.view(func(tx *bolt.Tx) error {
			size, page = tx.Size(), int64(h.db.Info().PageSize)
			return nil
		})
	}
	return image, size, page, drop, errors.Join(err, h.Close())
}

// copyRange copies the bytes from offset at to offset end to the same place of another file.
func copyRange(to, from *os.File, at, end int64) error {
	buf := make([]byte, min(1<<20, end-at))
	for at < end {
		b := buf[:min(int64(len(buf)), end-at)]
		if _, err := disk.ReadAt(from, b, at); err != nil {
			return err
		}
		if _, err := disk.WriteAt(to, b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return nil
}

// tempPath returns the path that replaces path, in the directory for temporary files, if nothing can be created beside
// path.
func tempPath(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(os.TempDir(), "keepcache-"+hex.EncodeToString(sum[:8])+"-"+filepath.Base(path))
}

// remakeInPlace is quarantine in place: it copies the contents of the file into quarantine and then makes a fresh cache
// in the same file. With resume, a crash has interrupted an earlier call, and the copy exists already. The returned
// handle has d.file.
func remakeInPlace(d damaged, suffix string, from *Catalog, again bool) (h *Handle, quarantined string, err error) {
	var text string
	if again {
		if text, err = beginningOf(d.file); err != nil {
			return nil, "", err
		}
		var kept *os.File
		if kept, quarantined = openQuarantined(d.in, d.file, d.path, suffix, text); kept != nil {
			kept.Close()
		}
	} else {
		quarantined = copyToQuarantine(d, suffix)
		text = remakeMarker(quarantined)
	}
	if err := makeInPlace(d.in, d.file, d.path, text, from.write); err != nil {
		return nil, quarantined, err
	}
	open := func(string, int, os.FileMode) (*os.File, error) { return d.file, nil }
	h, err = openHandle(d.path, false, maxReserve, time.Second, open)
	return h, quarantined, err
}

// copyToQuarantine copies the contents of a file to a new one beside it. If that directory is not writable or full, the
// copy goes to the directory for temporary files, readable by the owner only. If that fails too, the contents are lost,
// and it returns "".
func copyToQuarantine(d damaged, suffix string) (quarantined string) {
	in, like := d.in, d.like
	for _, path := range []string{d.path, tempPath(d.path)} {
		prefix, now := beside.Prefix(path, suffix, len(quarantineTime)), time.Now().UTC()
		for n := range quarantineTries {
			quarantined = prefix + now.Add(time.Duration(n)*time.Microsecond).Format(quarantineTime)
			err := copyDurably(d.file, in, quarantined, like)
			if err == nil {
				PruneQuarantine(in, path, suffix, quarantined)
				return quarantined
			}
			if !errors.Is(err, fs.ErrExist) {
				break
			}
		}
		in, like = nil, like.Private()
	}
	return ""
}

// copyDurably copies a file to a new one. The new file exists only if the copy is complete.
func copyDurably(from *os.File, in *disk.Dir, name string, like disk.Attributes) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	err = errors.Join(copyRange(to, from, 0, info.Size()), like.LendTo(to))
	if err == nil {
		err = disk.Sync(to)
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = in.Sync(name)
	}
	if err != nil {
		in.Remove(name)
	}
	return err
}

// remakeMarker returns the text for a file whose quarantined copy has the given path; "" is none.
func remakeMarker(quarantined string) string {
	text := remakeText + lostText
	if quarantined != "" {
		text = remakeText + keptText + filepath.Base(quarantined) + "\n"
	}
	if len(text) > markerBytes {
		return remakeText // no usual file system has such long names
	}
	return text
}

// openQuarantined opens the copy of what f, the file at path, had before it was being remade. It returns the copy with
// its path, or nil if there is none. text is the text in f. If text names no copy, because an older version wrote it,
// the newest copy counts.
func openQuarantined(in *disk.Dir, f *os.File, path, suffix, text string) (kept *os.File, quarantined string) {
	text = strings.TrimPrefix(text, remakeText)
	if text == lostText {
		return nil, ""
	}
	named, known := strings.CutPrefix(text, keptText)
	named = strings.TrimSuffix(named, "\n")
	for try := range 2 {
		if try == 1 {
			in, path = nil, tempPath(path)
		}
		for _, name := range slices.Backward(quarantinedFiles(in, path, suffix)) {
			if known && filepath.Base(name) != named {
				continue
			}
			if kept, err := openCopy(in, name, f); err == nil {
				return kept, name
			}
		}
	}
	return nil, ""
}

// openCopy opens a copy of f. It refuses one that a user may have put there who could not write to f.
func openCopy(in *disk.Dir, name string, f *os.File) (*os.File, error) {
	kept, err := in.OpenRegular(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	if err = trust.Opened(kept, name, in.Info); errors.Is(err, trust.ErrForeign) && sameOwner(kept, f) {
		err = nil
	}
	if err != nil {
		kept.Close()
		return nil, err
	}
	return kept, nil
}

func sameOwner(a, b *os.File) bool {
	of, err := a.Stat()
	if err != nil {
		return false
	}
	other, err := b.Stat()
	return err == nil && disk.AttributesIn(of).SameOwner(disk.AttributesIn(other))
}

// inheritFrom is inherit for the damaged file at path. If the file was being remade, it reads the quarantined copy
// instead.
func inheritFrom(in *disk.Dir, f *os.File, path string) (*Catalog, error) {
	begun, err := remakeBegun(f)
	if !begun {
		if err != nil && !errors.Is(err, ErrNotInitialized) {
			return nil, err
		}
		return inherit(in, f, beside.Journal(path))
	}
	text, err := beginningOf(f)
	if err != nil {
		return nil, err
	}
	kept, _ := openQuarantined(in, f, path, corruptSuffix, text)
	if kept == nil {
		return inherit(in, f, beside.Journal(path))
	}
	defer kept.Close()
	return inherit(in, kept, beside.Journal(path))
}
