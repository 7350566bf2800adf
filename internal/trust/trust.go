// Package trust says whose files and sockets a process may believe in a directory where others may put theirs, as
// everybody may in /tmp.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// ErrForeign says that a file, or the process that serves a socket, is another user's.
var ErrForeign = errors.New("belongs to another user")

// File returns ErrForeign for a file that another user may have put at path for this one to find: in a directory where
// all may make files and nobody may touch those of others, the sticky ones, it has to be this user's, root's or that of
// the directory's owner. That is the rule of Linux's fs.protected_regular. info describes the file. Where the system
// knows no owners every file will do.
//
// dir describes the directory that the file was found in. It is asked only about a file that is neither this user's nor
// root's.
func File(path string, info fs.FileInfo, dir Directory) error {
	uid, ok := owner(info)
	return file(path, uid, ok, dir)
}

// Directory describes the directory in which the file at path was found. The path may lead elsewhere by now.
type Directory func(path string) (fs.FileInfo, error)

// Opened is File for a file that is open.
func Opened(f *os.File, path string, dir Directory) error {
	uid, known, _, err := look(f)
	if err != nil {
		return err
	}
	return file(path, uid, known, dir)
}

// Regular reports whether an open file is a regular one.
func Regular(f *os.File) (bool, error) {
	_, _, regular, err := look(f)
	return regular, err
}

func lookAtAll(f *os.File) (uid uint32, known, regular bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, false, false, err
	}
	uid, known = owner(info)
	return uid, known, info.Mode().IsRegular(), nil
}

func file(path string, uid uint32, known bool, in Directory) error {
	if !known || own(uid) {
		return nil
	}
	dir, err := in(path)
	if err != nil {
		return err
	}
	if dir.Mode()&fs.ModeSticky == 0 || dir.Mode().Perm()&0o022 == 0 {
		return nil
	}
	if of, ok := owner(dir); ok && of == uid {
		return nil
	}
	return fmt.Errorf("%s %w (%s), and everybody may put files into its directory", strconv.Quote(path), ErrForeign,
		name(uid))
}

// Mine reports whether a file is this user's, so that he may remove it as his own. Where the system knows no owners
// every file is.
func Mine(info fs.FileInfo) bool {
	uid, ok := owner(info)
	return !ok || uid == uint32(os.Geteuid())
}

// Peer returns ErrForeign for a process with the user id uid that serves the socket of the file at path, unless it runs
// as this user, as root, or as the owner of that file. The last counts only where nobody but the directory's owner may
// have put the file there.
func Peer(path string, uid uint32) error {
	if own(uid) {
		return nil
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		if of, ok := owner(info); ok && of == uid {
			dir, err := os.Stat(filepath.Dir(path))
			if err != nil {
				return err
			}
			if of, ok := owner(dir); dir.Mode().Perm()&0o002 == 0 || ok && of == uid {
				return nil
			}
		}
	}
	return fmt.Errorf("the process that serves it %w (%s)", ErrForeign, name(uid))
}

// own reports whether a user is this one, or root, who can do as he likes anyway.
func own(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }

func name(uid uint32) string { return "user id " + strconv.FormatUint(uint64(uid), 10) }
