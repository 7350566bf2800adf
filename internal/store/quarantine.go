package store

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
)

const (
	corruptSuffix  = ".corrupt-"
	replacedSuffix = ".replaced-"

	// asideMost and asideBytes bound the files that are kept aside, by number and in bytes.
	asideMost  = 3
	asideBytes = 4 << 30

	asideTime  = "20060102T150405.000000Z" // names sort by age
	asideTries = 100                       // names, a microsecond apart, where the clock stands still
)

// damaged is a file that is to be kept aside.
type damaged struct {
	in   *disk.Dir
	path string
	file *os.File        // open for writing and locked by the caller; nil where there is none, or where it is not to be changed
	like disk.Attributes // that the fresh file gets
}

// quarantine keeps a file aside and gives its name to a fresh one, which it returns, locked. A crash leaves one or the other at the
// path: the damaged one gets a second name first, and the fresh one, locked and whole, then takes the first in one step.
//
// Where no other file can take the name, because the file is a mount of its own, its directory cannot be written to or belongs to
// others, or the fresh file cannot be given its owner, it is made anew in place. The handle then has d.file; else the caller closes
// that.
func quarantine(d damaged, suffix string, from *Catalog) (h *Handle, aside string, err error) {
	if begun, _ := beganAnew(d.file); begun {
		return remake(d, suffix, from, true)
	}
	if d.file == nil || d.in.Moved() || !disk.Mounted(d.path) {
		h, aside, err = replaceDamaged(d, suffix, from)
	} else {
		err = errUnmoving
	}
	if err == nil || d.file == nil || !Irreplaceable(err) {
		return h, aside, err
	}
	why := err
	if h, aside, err = remake(d, suffix, from, false); err != nil {
		err = errors.Join(err, why)
	}
	return h, aside, err
}

// Irreplaceable reports whether an error tells that another file can never take the path, as far as one can say.
func Irreplaceable(err error) bool {
	return unmoving(err) || errors.Is(err, errUnmoving) || errors.Is(err, disk.ErrAttributes) ||
		errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func replaceDamaged(d damaged, suffix string, from *Catalog) (h *Handle, aside string, err error) {
	in, path := d.in, d.path
	info, err := in.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	next := successorPath(path)
	if err := in.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	if h, err = createLocked(in, next, d.like, reserveMost); err != nil {
		return nil, "", err
	}
	err = h.update(from.write)
	if err == nil {
		err = h.sync()
	}
	if err == nil && info != nil {
		aside, err = KeepAside(in, path, suffix, info)
	}
	if err == nil && info == nil {
		err = in.Link(next, path) // never in the place of what another process has put there meanwhile
		in.Remove(next)
	} else if err == nil {
		err = in.Rename(next, path)
	}
	if err != nil {
		if now, e := in.Lstat(path); e == nil && info != nil && os.SameFile(now, info) {
			in.Remove(aside) // what may be done to the file in place is not to be done to what is kept
		}
		return nil, "", errors.Join(err, h.Close(), in.Remove(next))
	}
	PruneAside(in, path, suffix, aside)
	if err = in.Sync(path); err != nil {
		return nil, aside, errors.Join(err, h.Close())
	}
	return h, aside, nil
}

// KeepAside gives the file at path, which info describes, another name, and takes the first away only where the file
// system knows no links. It returns the name.
func KeepAside(in *disk.Dir, path, suffix string, info fs.FileInfo) (aside string, err error) {
	for _, name := range asides(in, path, suffix) {
		if other, err := in.Lstat(name); err == nil && os.SameFile(info, other) {
			return name, nil // a crash came between this and what was to follow
		}
	}
	prefix, now := beside.Prefix(path, suffix, len(asideTime)), time.Now().UTC()
	for n := range asideTries {
		aside = prefix + now.Add(time.Duration(n)*time.Microsecond).Format(asideTime)
		if err = in.Link(path, aside); err == nil {
			return aside, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if _, there := in.Lstat(aside); errors.Is(there, fs.ErrNotExist) {
		err = in.Rename(path, aside)
	}
	return aside, err
}

// asides returns the files that were kept aside, the oldest first.
func asides(in *disk.Dir, path, suffix string) []string {
	prefix := beside.Prefix(path, suffix, len(asideTime))
	return slices.DeleteFunc(in.Beside(prefix), func(name string) bool {
		time := name[len(prefix):]
		return time == "" || time[0] < '0' || time[0] > '9'
	})
}

// PruneAside removes the oldest of the files that were kept aside until their number and their bytes are within bounds. What
// has a later name than the newest one does not count: among the temporary files anybody may have put it there.
func PruneAside(in *disk.Dir, path, suffix, newest string) {
	found := asides(in, path, suffix)
	if i := slices.Index(found, newest); i >= 0 {
		found = found[:i+1]
	}
	var bytes int64
	for i, name := range slices.Backward(found) {
		info, err := in.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		bytes += info.Size()
		if kept := len(found) - 1 - i; kept > 0 && (kept >= asideMost || bytes > asideBytes) {
			in.Remove(name)
		}
	}
}

// QuarantineDamaged is what Open does with a file of ours that is damaged.
func QuarantineDamaged(in *disk.Dir, path string, wait time.Duration) (h *Handle, aside string, from *Catalog, err error) {
	f, _, err := openOwned(in, path, os.O_RDWR, wait)
	if err != nil {
		return nil, "", nil, err
	}
	defer func() {
		if h == nil || h.file != f {
			f.Close()
		}
	}()
	if from, err = inheritFrom(in, f, path); err != nil {
		return nil, "", nil, err
	}
	like, err := disk.AttributesOf(f)
	if err != nil {
		return nil, "", nil, err
	}
	h, aside, err = quarantine(damaged{in, path, f, like}, corruptSuffix, from)
	return h, aside, from, err
}
