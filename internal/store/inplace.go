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

// An empty file is made a cache in place, and so is a damaged one that no other can replace. While that lasts the file begins
// with one of these texts, which fill a sector of the disk with zeros behind them, so that a crash leaves the text or what was before.
// All pages follow it, then the second meta page, and the first takes its place last of all. So a file that was not finished is
// never taken for one that was, and the next Open begins anew. They are a part of the file format.
const (
	makingText = "keepcache is making a cache of this file, and the next Open finishes that.\n"
	anewText   = "keepcache is making this file anew, because it was damaged, and the next Open finishes that.\n"

	// One of these follows anewText: a copy's name with a newline behind it, or that there is none. Older ones lack both.
	keptText = "What it had is in "
	lostText = "What it had could not be kept.\n"

	makingBytes = 512
)

var (
	ErrUnmade = fmt.Errorf("%w: it is empty", errs.ErrFormat)
	ErrAnew   = fmt.Errorf("%w: a crash came while it was made anew", errs.ErrCorrupt)
)

// Unfinished returns ErrUnmade for a file that is still to be made a cache: one that is empty, or was begun, and ErrAnew for a
// damaged one that was being made anew.
func Unfinished(f *os.File, size int64) error {
	if size == 0 {
		return ErrUnmade
	}
	text, err := beginningOf(f)
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(text, makingText), size == makingBytes && text == "":
		return ErrUnmade // or the text was not on disk yet, but its length
	case strings.HasPrefix(text, anewText):
		return ErrAnew
	}
	return nil
}

// beginningOf returns the text with which a file begins, without the zeros behind it.
func beginningOf(f *os.File) (string, error) {
	b := make([]byte, makingBytes)
	n, err := disk.ReadAt(f, b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(string(b[:n]), "\x00"), nil
}

// beganAnew reports whether a file was being made anew when a crash came. f may be nil.
func beganAnew(f *os.File) (bool, error) {
	if f == nil {
		return false, nil
	}
	info, err := f.Stat()
	if err == nil {
		err = Unfinished(f, info.Size())
	}
	return errors.Is(err, ErrAnew), err
}

// finishFile makes a cache of the file at path if it is still to be made one. A journal that is there tells whose it was.
func finishFile(in *disk.Dir, path string, wait time.Duration) error {
	f, _, err := openOwned(in, path, os.O_RDWR, wait)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lockAlone(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := Unfinished(f, info.Size()); !errors.Is(err, ErrUnmade) {
		return err // another process was quicker
	}
	from, err := inherit(in, f, beside.Journal(path))
	if err != nil {
		return err
	}
	return makeInPlace(in, f, path, makingText, from.write)
}

// makeInPlace makes f, which the caller has locked, a cache with what fill writes. The text says what for.
func makeInPlace(in *disk.Dir, f *os.File, path, text string, fill func(*bolt.Tx) error) error {
	image, size, page, drop, err := makeImage(in, path, fill)
	defer drop()
	if err != nil {
		return err
	}

	mark := make([]byte, makingBytes)
	copy(mark, text)
	if _, err := disk.WriteAt(f, mark, 0); err != nil {
		if text == makingText {
			_ = disk.Truncate(f, 0) // a part of the text is nothing that the next Open knows
		}
		return err
	}
	if err := errors.Join(disk.Sync(f), disk.Truncate(f, makingBytes)); err != nil {
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

// makeImage makes a cache beside the file at path, or where that directory cannot be written to among the temporary files, and
// returns it with its size and that of its pages. drop removes it.
func makeImage(in *disk.Dir, path string, fill func(*bolt.Tx) error) (image *os.File, size, page int64, drop func(), err error) {
	image, name, err := createTemp(in, path, creatorSuffix)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		in = nil
		image, name, err = createTemp(in, elsewhere(path), creatorSuffix)
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
		h.db.NoFreelistSync = false // it is a file at rest
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

// copyRange copies the bytes from one offset to another to the same place of another file.
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

// elsewhere returns the path among the temporary files beside which stands what cannot stand beside the cache at path.
func elsewhere(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(os.TempDir(), "keepcache-"+hex.EncodeToString(sum[:8])+"-"+filepath.Base(path))
}

// remake is quarantine in place: the contents of the file are copied aside, unless an earlier time that a crash ended has done it,
// and a fresh one is made where it is. The handle that it returns has d.file.
func remake(d damaged, suffix string, from *Catalog, again bool) (h *Handle, aside string, err error) {
	var text string
	if again {
		if text, err = beginningOf(d.file); err != nil {
			return nil, "", err
		}
		var kept *os.File
		if kept, aside = openKept(d.in, d.file, d.path, suffix, text); kept != nil {
			kept.Close()
		}
	} else {
		aside = copyAside(d, suffix)
		text = anewMark(aside)
	}
	if err := makeInPlace(d.in, d.file, d.path, text, from.write); err != nil {
		return nil, aside, err
	}
	h, err = openHandle(d.path, false, reserveMost, time.Second, func(string, int, os.FileMode) (*os.File, error) { return d.file, nil })
	return h, aside, err
}

// copyAside copies the contents of a file beside it, or where that directory cannot be written to or has no room, among the
// temporary files, for the owner's eyes only. Where that cannot be either they are lost, and it returns nothing.
func copyAside(d damaged, suffix string) (aside string) {
	in, like := d.in, d.like
	for _, path := range []string{d.path, elsewhere(d.path)} {
		prefix, now := beside.Prefix(path, suffix, len(asideTime)), time.Now().UTC()
		for n := range asideTries {
			aside = prefix + now.Add(time.Duration(n)*time.Microsecond).Format(asideTime)
			err := copyWhole(d.file, in, aside, like)
			if err == nil {
				PruneAside(in, path, suffix, aside)
				return aside
			}
			if !errors.Is(err, fs.ErrExist) {
				break
			}
		}
		in, like = nil, like.Private()
	}
	return ""
}

// copyWhole copies a file to a new one, which is there only if it is whole.
func copyWhole(from *os.File, in *disk.Dir, name string, like disk.Attributes) error {
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

// anewMark returns the text for a file of which there is the given copy, or none.
func anewMark(aside string) string {
	text := anewText + lostText
	if aside != "" {
		text = anewText + keptText + filepath.Base(aside) + "\n"
	}
	if len(text) > makingBytes {
		return anewText // no usual file system has such names
	}
	return text
}

// openKept opens the copy of what f, the file at path, had before it was being made anew, and returns it with its path, or nil if
// there is none. text is that of f. Where it names no copy, because an older keepcache wrote it, the newest one counts.
func openKept(in *disk.Dir, f *os.File, path, suffix, text string) (kept *os.File, aside string) {
	text = strings.TrimPrefix(text, anewText)
	if text == lostText {
		return nil, ""
	}
	named, known := strings.CutPrefix(text, keptText)
	named = strings.TrimSuffix(named, "\n")
	for try := range 2 {
		if try == 1 {
			in, path = nil, elsewhere(path)
		}
		for _, name := range slices.Backward(asides(in, path, suffix)) {
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

// openCopy opens a copy of f, unless somebody may have put it there who could not have written to f.
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

// inheritFrom is inherit for the damaged file at path. Where it was being made anew, what it had is in the copy that was kept.
func inheritFrom(in *disk.Dir, f *os.File, path string) (*Catalog, error) {
	begun, err := beganAnew(f)
	if !begun {
		if err != nil && !errors.Is(err, ErrUnmade) {
			return nil, err
		}
		return inherit(in, f, beside.Journal(path))
	}
	text, err := beginningOf(f)
	if err != nil {
		return nil, err
	}
	kept, _ := openKept(in, f, path, corruptSuffix, text)
	if kept == nil {
		return inherit(in, f, beside.Journal(path))
	}
	defer kept.Close()
	return inherit(in, kept, beside.Journal(path))
}
