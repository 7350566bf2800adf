package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Attributes are what a file has beside its name, its contents and its times: owner, group and mode where the system
// has them, and on Linux its labels. The zero value, as all of them on systems without owners, says nothing: a file
// keeps what it was made with.
type Attributes struct {
	owned    bool // uid and gid are known
	uid, gid int
	mode     fs.FileMode
	labels   []label
	unread   error // why labels are not all that the file has
}

// label is an extended attribute.
type label struct {
	name  string
	value []byte
}

// errACL says that it is not known who may use a file besides those of whom its mode tells.
var errACL = errors.New("its ACL cannot be read")

// ErrAttributes is in the errors of GiveTo.
var ErrAttributes = errors.New("its owner, group, mode and labels cannot be given to another file")

const (
	// modeBits are those that chmod changes.
	modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

	private fs.FileMode = 0o600
)

// AttributesOf returns the attributes that f has now. Labels that cannot be read, or are too many, are no error before
// they are to be given to another file.
func AttributesOf(f *os.File) (a Attributes, err error) {
	info, err := f.Stat()
	if err != nil {
		return a, err
	}
	a = AttributesIn(info)
	a.labels, a.unread = labelsOf(f)
	return a, nil
}

// AttributesIn returns the attributes of which info tells: all but the labels.
func AttributesIn(info fs.FileInfo) (a Attributes) {
	a.mode = info.Mode() & modeBits
	a.uid, a.gid, a.owned = ownerIn(info)
	return a
}

// Same reports whether two have the same owner, group and mode.
func (a Attributes) Same(b Attributes) bool {
	return a.mode == b.mode && a.owned == b.owned && a.uid == b.uid && a.gid == b.gid
}

// SameOwner reports whether two have the same owner, where the system knows owners.
func (a Attributes) SameOwner(b Attributes) bool { return a.owned && b.owned && a.uid == b.uid }

// GiveTo gives f, which is to take the place of the file that a is of, all of a. It says nothing to the system about
// what f has already. An error matches ErrAttributes; f is then not to take that place.
func (a Attributes) GiveTo(f *os.File) error {
	if !a.owned {
		return nil
	}
	if a.unread != nil {
		return fmt.Errorf("%w: %w", ErrAttributes, a.unread)
	}
	changed := false
	err := between(f, func() (err error) {
		changed, err = a.give(f)
		return err
	})
	if err == nil && changed {
		err = Sync(f)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAttributes, err)
	}
	return nil
}

func (a Attributes) give(f *os.File) (changed bool, err error) {
	if changed, err = a.own(f, a.uid, a.gid); err != nil {
		return changed, err
	}
	more, err := a.chmod(f, a.mode)
	if err != nil {
		return changed, err
	}
	labelled, err := setLabels(f, a.labels)
	return changed || more || labelled, err
}

// LendTo gives f, which stands beside the file that a is of, as much of a as the system allows: whoever may use the one
// is to be able to use the other, and nobody else. Where the group cannot be given, or an ACL is not known, the group
// of f may do what others may. The maker of f can always read and write it.
func (a Attributes) LendTo(f *os.File) error {
	if !a.owned {
		return nil
	}
	return between(f, func() error {
		if _, err := a.own(f, a.uid, a.gid); err != nil {
			_, _ = a.own(f, -1, a.gid)
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		mode := a.mode
		whole := true
		if _, gid, owned := ownerIn(info); owned && gid != a.gid || errors.Is(a.unread, errACL) {
			mode = mode&^0o070 | mode&0o007<<3
			whole = false
		}
		if _, err := a.chmod(f, mode&fs.ModePerm|private); err != nil || !whole {
			return err
		}
		_, _ = setLabels(f, a.labels)
		return nil
	})
}

// Private returns the attributes of a file that nobody but the owner is to use.
func (a Attributes) Private() Attributes {
	a.mode, a.labels, a.unread = private, nil, nil
	return a
}

// own gives f an owner and a group, where these are other than it has. -1 leaves one as it is.
func (a Attributes) own(f *os.File, uid, gid int) (changed bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	has, in, owned := ownerIn(info)
	if !owned || (uid == has || uid < 0) && gid == in {
		return false, nil
	}
	if uid == has {
		uid = -1
	}
	return true, f.Chown(uid, gid)
}

// chmod comes after own, which takes bits away.
func (a Attributes) chmod(f *os.File, mode fs.FileMode) (changed bool, err error) {
	info, err := f.Stat()
	if err != nil || info.Mode()&modeBits == mode {
		return false, err
	}
	return true, f.Chmod(mode)
}

func between(f *os.File, do func() error) error {
	if Between == nil {
		return do()
	}
	return Between(&Op{Kind: KindAttributes, File: f}, do)
}
