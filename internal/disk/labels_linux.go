package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The labels that a file keeps are those that say who may use it, and what its users have noted with it: the ACL of
// POSIX, those of SELinux and Smack, and the namespace user. All others are the system's: "trusted" belongs to file
// systems such as overlayfs, security.ima, .evm and .capability are about the very contents of a file.
const (
	labelACL     = "system.posix_acl_access"
	labelSELinux = "security.selinux"
	labelSmack   = "security.SMACK64"
	labelUser    = "user."
)

// The kernel's own bounds (xattr(7)) are 64 KiB for all names, and as much for each value. A file with more than these
// is not replaced.
const (
	labelsMost  = 64
	labelsBytes = 256 << 10
	namesBytes  = 64 << 10
)

var errLabels = fmt.Errorf("it has more than %d extended attributes, or more than %d bytes of them", labelsMost,
	labelsBytes)

func keeps(name string) bool {
	return name == labelACL || name == labelSELinux || name == labelSmack || strings.HasPrefix(name, labelUser)
}

// unlabelled reports whether an error says that there is no such label, or that the file system has none.
func unlabelled(err error) bool { return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) }

// labelsOf returns the labels of f. Where it cannot return all of them it says why, and returns those that say who may
// use f as far as they can be read.
func labelsOf(f *os.File) (labels []label, unread error) {
	buf := make([]byte, namesBytes)
	n, err := unix.Flistxattr(int(f.Fd()), buf)
	if unlabelled(err) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // or a sandbox forbids it
		return nil, nil
	}
	names := string(buf[:max(n, 0)])
	if err != nil {
		unread = &os.PathError{Op: "flistxattr", Path: f.Name(), Err: err}
		names = labelACL + "\x00" + labelSELinux + "\x00" + labelSmack
	}
	total := 0
	for name := range strings.SplitSeq(names, "\x00") {
		if !keeps(name) || unread != nil && strings.HasPrefix(name, labelUser) {
			continue
		}
		value, err := valueOf(f, name)
		if unlabelled(err) {
			continue // it went meanwhile
		}
		if err != nil && name == labelACL {
			err = fmt.Errorf("%w: %w", errACL, err)
		}
		if err != nil {
			unread = errors.Join(unread, err)
			continue
		}
		labels = append(labels, label{name, value})
		if total += len(name) + len(value); len(labels) > labelsMost || total > labelsBytes {
			unread = errors.Join(unread, errLabels)
		}
	}
	return labels, unread
}

func valueOf(f *os.File, name string) ([]byte, error) {
	for buf := make([]byte, 256); ; buf = make([]byte, namesBytes) {
		n, err := unix.Fgetxattr(int(f.Fd()), name, buf)
		switch {
		case errors.Is(err, unix.ERANGE) && len(buf) < namesBytes:
		case err != nil:
			return nil, &os.PathError{Op: "fgetxattr " + name, Path: f.Name(), Err: err}
		default:
			return bytes.Clone(buf[:n]), nil
		}
	}
}

// setLabels gives f the labels that it does not have, and takes away an ACL that only f has: that of its directory's
// default. It comes after the mode, of which an ACL says more.
func setLabels(f *os.File, labels []label) (changed bool, err error) {
	if !slices.ContainsFunc(labels, func(l label) bool { return l.name == labelACL }) {
		if _, err := valueOf(f, labelACL); err == nil {
			if err := unix.Fremovexattr(int(f.Fd()), labelACL); err != nil {
				return changed, &os.PathError{Op: "fremovexattr " + labelACL, Path: f.Name(), Err: err}
			}
			changed = true
		}
	}
	for _, l := range labels {
		if has, err := valueOf(f, l.name); err == nil && bytes.Equal(has, l.value) {
			continue
		}
		err := unix.Fsetxattr(int(f.Fd()), l.name, l.value, 0)
		if err != nil && strings.HasPrefix(l.name, "security.") {
			continue // the policy decides; what it gives a new file there it means to
		}
		if err != nil {
			return changed, &os.PathError{Op: "fsetxattr " + l.name, Path: f.Name(), Err: err}
		}
		changed = true
	}
	return changed, nil
}
