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

	// maxQuarantined and maxQuarantinedBytes bound the quarantined files, by number and in bytes.
	maxQuarantined      = 3
	maxQuarantinedBytes = 4 << 30

	quarantineTime  = "20060102T150405.000000Z" // names sort by age
	quarantineTries = 100                       // names, a microsecond apart, in case the clock stands still
)

// damaged is a file to quarantine.
type damaged struct {
	in   *disk.Dir
	path string
	file *os.File        // open for writing and locked by the caller; nil if there is none or it must not be changed
	like disk.Attributes // for the fresh file
}

// quarantine renames a file and puts a fresh one in its place, which it returns locked. After a crash one or the other
// is at the path: the damaged one gets a second name first, and the fresh one, locked and complete, then takes the
// first name atomically.
//
// No other file may be able to take the name: the file is a bind mount, its directory is not writable or belongs to
// others, or the fresh file cannot get its owner. Then the file is remade in place, and the returned handle has d.file.
// Otherwise the caller closes d.file.
func quarantine(d damaged, suffix string, from *Catalog) (h *Handle, quarantined string, err error) {
	if begun, _ := remakeBegun(d.file); begun {
		return remakeInPlace(d, suffix, from, true)
	}
	if d.file == nil || d.in.Moved() || !disk.Mounted(d.path) {
		h, quarantined, err = replaceDamaged(d, suffix, from)
	} else {
		err = errMountPoint
	}
	if err == nil || d.file == nil || !Irreplaceable(err) {
		return h, quarantined, err
	}
	why := err
	if h, quarantined, err = remakeInPlace(d, suffix, from, false); err != nil {
		err = errors.Join(err, why)
	}
	return h, quarantined, err
}

// Irreplaceable reports whether an error means that no other file can ever take the path, as far as can be known.
func Irreplaceable(err error) bool {
	return isMountPoint(err) || errors.Is(err, errMountPoint) || errors.Is(err, disk.ErrAttributes) ||
		errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func replaceDamaged(d damaged, suffix string, from *Catalog) (h *Handle, quarantined string, err error) {
	in, path := d.in, d.path
	info, err := in.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	next := successorPath(path)
	if err := in.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	if h, err = createLocked(in, next, d.like, maxReserve); err != nil {
		return nil, "", err
	}
	err = h.update(from.write)
	if err == nil {
		err = h.sync()
	}
	if err == nil && info != nil {
		quarantined, err = QuarantineFile(in, path, suffix, info)
	}
	if err == nil && info == nil {
		err = in.Link(next, path) // never replace a file that another process has put there meanwhile
		in.Remove(next)
	} else if err == nil {
		err = in.Rename(next, path)
	}
	if err != nil {
		if now, e := in.Lstat(path); e == nil && info != nil && os.SameFile(now, info) {
			in.Remove(quarantined) // the file may be remade in place, and that must not change the quarantined one
		}
		return nil, "", errors.Join(err, h.Close(), in.Remove(next))
	}
	PruneQuarantine(in, path, suffix, quarantined)
	if err = in.Sync(path); err != nil {
		return nil, quarantined, errors.Join(err, h.Close())
	}
	return h, quarantined, nil
}

// QuarantineFile links the file at path, which info describes, to a name of quarantined files and returns that name.
// Only if the file system has no links, it renames the file.
func QuarantineFile(in *disk.Dir, path, suffix string, info fs.FileInfo) (quarantined string, err error) {
	for _, name := range quarantinedFiles(in, path, suffix) {
		if other, err := in.Lstat(name); err == nil && os.SameFile(info, other) {
			return name, nil // a crash came between this and the next step
		}
	}
	prefix, now := beside.Prefix(path, suffix, len(quarantineTime)), time.Now().UTC()
	for n := range quarantineTries {
		quarantined = prefix + now.Add(time.Duration(n)*time.Microsecond).Format(quarantineTime)
		if err = in.Link(path, quarantined); err == nil {
			return quarantined, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if _, there := in.Lstat(quarantined); errors.Is(there, fs.ErrNotExist) {
		err = in.Rename(path, quarantined)
	}
	return quarantined, err
}

// quarantinedFiles returns the quarantined files of a path, the oldest first.
func quarantinedFiles(in *disk.Dir, path, suffix string) []string {
	prefix := beside.Prefix(path, suffix, len(quarantineTime))
	return slices.DeleteFunc(in.Beside(prefix), func(name string) bool {
		time := name[len(prefix):]
		return time == "" || time[0] < '0' || time[0] > '9'
	})
}

// PruneQuarantine removes the oldest quarantined files until their number and size are within bounds. It ignores files
// with a later name than newest: in the directory for temporary files, anybody may have put them there.
func PruneQuarantine(in *disk.Dir, path, suffix, newest string) {
	found := quarantinedFiles(in, path, suffix)
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
		if kept := len(found) - 1 - i; kept > 0 && (kept >= maxQuarantined || bytes > maxQuarantinedBytes) {
			in.Remove(name)
		}
	}
}

// QuarantineDamaged quarantines a damaged cache for Open and returns the fresh one.
func QuarantineDamaged(
	in *disk.Dir, path string, wait time.Duration,
) (h *Handle, quarantined string, from *Catalog, err error) {
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
	h, quarantined, err = quarantine(damaged{in, path, f, like}, corruptSuffix, from)
	return h, quarantined, from, err
}
