package denied_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func init() {
	cachetest.Children["killed"] = killedChild
	cachetest.Children["user"] = userChild
	cachetest.Children["mounted"] = mountedChild
}

// others and nobody are users and groups of whom the tests own nothing.
const (
	others = 65533
	nobody = 65534
)

// needsRoot skips a test that hands files to others.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can give files to others")
	}
}

// sharedPath returns a path for a cache in a directory of the given owner, which others can reach.
func sharedPath(t *testing.T, uid, gid int, mode fs.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keepcache")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chown(dir, uid, gid))
	require.NoError(t, os.Chmod(dir, mode))
	return filepath.Join(dir, "test.cache")
}

// asUser runs a child with the rights of a user, and requires that it ends well.
func asUser(t *testing.T, uid, gid uint32, name string, args ...string) {
	t.Helper()
	cmd := cachetest.ChildCommand(name, args...)
	// The test binary lies where others cannot reach it: it is handed over as an open file.
	self, err := os.Open("/proc/self/exe")
	require.NoError(t, err)
	defer self.Close()
	cmd.ExtraFiles, cmd.Path = []*os.File{self}, "/proc/self/fd/3"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	cmd.Dir = "/"
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	require.NoError(t, err, said.String())
}

// userChild opens the cache at a path and does what the other arguments say.
func userChild(t cachetest.Tester, args []string) {
	var said logged
	db, err := cachetest.TryOpen(args[0], &keepcache.Options{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	require.NoError(t, err)
	for _, what := range args[1:] {
		switch what {
		case "set":
			require.NoError(t, db.Set("by the user", "v", 0))
		case "slow":
			require.NoError(t, db.Set("by the user", "v", 0))
			require.NoError(t, db.Set("by the user", "w", 0))
			require.Equal(t, 1, strings.Count(said.String(), "there can be no journal"), said.String())
		case "root's":
			cachetest.RequireValue(t, db.Bucket("default"), "by root", "v")
		case "compact":
			require.NoError(t, db.Compact(context.Background()))
		case "refused":
			var e *keepcache.Error
			err := db.Compact(context.Background())
			require.ErrorAs(t, err, &e)
			require.ErrorIs(t, err, fs.ErrPermission)
			require.Contains(t, e.Hint, "owner")
		case "quarantined":
			require.Equal(t, uint64(1), db.Stats().Health.Quarantined)
			cachetest.RequireValue(t, db.Bucket("default"), "by the user", "v")
		}
	}
	require.NoError(t, db.Close())
}

// logged is a log that is read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// killedChild writes to a cache and dies.
func killedChild(t cachetest.Tester, args []string) {
	db, err := cachetest.TryOpen(args[0], nil)
	require.NoError(t, err)
	require.NoError(t, db.Set("by root", "v", 0))
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// requireOwner requires what a file has beside its contents.
func requireOwner(t cachetest.Tester, path string, uid, gid int, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	require.Equal(t, fmt.Sprint(uid, gid, mode), fmt.Sprint(int(st.Uid), int(st.Gid), info.Mode().Perm()), path)
}

// A user's cache stays the user's when root compacts it, by a call and by itself, has it healed, and puts a damaged one
// aside; and so does a journal that root leaves. The directory gives its own group to what is made in it.
func TestOwner_Root(t *testing.T) {
	needsRoot(t)
	path := sharedPath(t, nobody, others, 0o2770|fs.ModeSetgid)
	asUser(t, nobody, nobody, "user", path, "set")
	require.NoError(t, os.Chown(path, nobody, nobody))
	require.NoError(t, os.Chmod(path, 0o640))

	db := cachetest.OpenUnchecked(t, path)
	before, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, db.Compact(context.Background()))
	now, err := os.Stat(path)
	require.NoError(t, err)
	require.False(t, os.SameFile(before, now))
	requireOwner(t, path, nobody, nobody, 0o640)
	require.NoError(t, db.Set("by root", "v", 0))
	requireOwner(t, path+"-journal", nobody, nobody, 0o640)
	require.NoError(t, db.Close())
	asUser(t, nobody, nobody, "user", path, "set", "root's")

	require.Error(t, cachetest.ChildCommand("killed", path).Run())
	requireOwner(t, path+"-journal", nobody, nobody, 0o640)
	asUser(t, nobody, nobody, "user", path, "root's", "set")

	// The journal that takes over from one that a crash left.
	require.Error(t, cachetest.ChildCommand("killed", path).Run())
	db = cachetest.OpenUnchecked(t, path)
	requireOwner(t, path+"-journal", nobody, nobody, 0o640)
	require.NoError(t, db.Close())

	cachetest.BreakFile(t, path)
	db = cachetest.OpenUnchecked(t, path)
	requireOwner(t, db.Stats().Health.Aside, nobody, nobody, 0o640)
	requireOwner(t, path, nobody, nobody, 0o640)
	require.NoError(t, db.Set("by root", "v", 0))

	require.NoError(t, os.Chmod(path, 0o660))
	require.NoError(t, os.Remove(path))
	require.NoError(t, cachetest.AwaitHealed(db))
	requireOwner(t, path, nobody, nobody, 0o660)
	require.NoError(t, db.Close())
	asUser(t, nobody, nobody, "user", path, "root's", "set", "compact")
}

// A mode that is changed while the cache is open stays through a compaction, and soon the journal has it too.
func TestOwner_ChmodWhileOpen(t *testing.T) {
	t.Parallel()
	path := cachetest.NewPath(t)
	db := cachetest.Open(t, path, &keepcache.Options{SweepInterval: -1})
	cachetest.MustSet(t, db.Bucket("b"), "k", "v", 0)
	require.NoError(t, os.Chmod(path, 0o644))
	require.NoError(t, db.Compact(context.Background()))
	requireOwner(t, path, os.Getuid(), os.Getgid(), 0o644)
	require.NoError(t, os.Chmod(path, 0o640))
	require.Eventually(t, func() bool {
		info, err := os.Stat(path + "-journal")
		return err == nil && info.Mode().Perm() == 0o640
	}, 20*time.Second, 20*time.Millisecond)
}

// Labels go along: what users note, and the ACL, which a directory's default does not replace.
func TestOwner_Labels(t *testing.T) {
	path := cachetest.NewPath(t)
	db := cachetest.OpenUnchecked(t, path)
	cachetest.MustSet(t, db.Bucket("b"), "k", "v", 0)
	err := unix.Setxattr(path, "user.note", []byte("mine"), 0)
	if errors.Is(err, unix.ENOTSUP) {
		t.Skip("the file system has no extended attributes")
	}
	require.NoError(t, err)
	// Version 2; user::rw-, user:nobody:r--, group::---, mask::r--, other::---.
	acl := []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xfe\xff\x00\x00" +
		"\x04\x00\x00\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff")
	const access, inherited = "system.posix_acl_access", "system.posix_acl_default"
	get := func(path, name string) []byte {
		b := make([]byte, 1024)
		n, err := unix.Getxattr(path, name, b)
		if errors.Is(err, unix.ENODATA) {
			return nil
		}
		require.NoError(t, err)
		return b[:n]
	}
	require.NoError(t, unix.Setxattr(path, access, acl, 0))
	require.NoError(t, db.Compact(context.Background()))
	require.Equal(t, acl, get(path, access))
	require.Equal(t, "mine", string(get(path, "user.note")))
	require.NoError(t, db.Close())
	cachetest.BreakFile(t, path)
	db = cachetest.OpenUnchecked(t, path)
	require.Equal(t, acl, get(path, access))
	cachetest.MustSet(t, db.Bucket("b"), "k", "v", 0)
	require.Equal(t, acl, get(path+"-journal", access))

	require.NoError(t, unix.Removexattr(path, access))
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, unix.Setxattr(filepath.Dir(path), inherited, acl, 0))
	require.NoError(t, db.Compact(context.Background()))
	require.Nil(t, get(path, access))
	requireOwner(t, path, os.Getuid(), os.Getgid(), 0o600)
	require.NoError(t, db.Close())
}

// A file with more labels than are kept is used as any other, and damage of it is mended in place; it is only not
// replaced.
func TestOwner_ManyLabels(t *testing.T) {
	path := cachetest.NewPath(t)
	db := cachetest.OpenUnchecked(t, path)
	cachetest.MustSet(t, db.Bucket("b"), "k", "v", 0)
	require.NoError(t, db.Close())
	for i := range 65 {
		err := unix.Setxattr(path, fmt.Sprint("user.", i), []byte("x"), 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSPC) {
			t.Skip("the file system has not so many extended attributes")
		}
		require.NoError(t, err)
	}
	before, err := os.Stat(path)
	require.NoError(t, err)
	for _, o := range []*keepcache.Options{{ReadOnly: true}, nil} {
		db, err := cachetest.TryOpen(path, o)
		require.NoError(t, err)
		cachetest.RequireValue(t, db.Bucket("b"), "k", "v")
		require.NoError(t, db.Close())
	}
	db = cachetest.OpenUnchecked(t, path)
	require.NoError(t, os.Chmod(path, 0o640))
	cachetest.MustSet(t, db.Bucket("b"), "k", "more", 0)
	require.ErrorIs(t, db.Compact(context.Background()), disk.ErrAttributes)
	require.NoError(t, db.Close())
	cachetest.BreakFile(t, path)
	db = cachetest.OpenUnchecked(t, path)
	cachetest.MustSet(t, db.Bucket("b"), "k", "v", 0)
	require.Equal(t, uint64(1), db.Stats().Health.Quarantined)
	require.NoError(t, db.Close())
	now, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, now))
}

// Who may write to another's file, but not own one for them, uses it, and does not replace it. A damaged one is made
// anew in place.
func TestOwner_Foreign(t *testing.T) {
	needsRoot(t)
	path := sharedPath(t, others, nobody, 0o770)
	db := cachetest.OpenUnchecked(t, path)
	require.NoError(t, db.Set("by root", "v", 0))
	require.NoError(t, db.Close())
	require.NoError(t, os.Chown(path, others, nobody))
	require.NoError(t, os.Chmod(path, 0o660))
	before, err := os.Stat(path)
	require.NoError(t, err)
	same := func() {
		t.Helper()
		now, err := os.Stat(path)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, now))
		requireOwner(t, path, others, nobody, 0o660)
	}
	asUser(t, nobody, nobody, "user", path, "root's", "set", "refused")
	same()

	// The journal that the one leaves is one that the owner can use through the group.
	cmd := cachetest.ChildCommand("killed", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	self, err := os.Open("/proc/self/exe")
	require.NoError(t, err)
	defer self.Close()
	cmd.ExtraFiles, cmd.Path, cmd.Dir = []*os.File{self}, "/proc/self/fd/3", "/"
	require.Error(t, cmd.Run())
	requireOwner(t, path+"-journal", nobody, nobody, 0o660)
	asUser(t, others, nobody, "user", path, "root's", "set")

	cachetest.BreakFile(t, path)
	asUser(t, nobody, nobody, "user", path, "set", "quarantined")
	same()
	aside, err := filepath.Glob(path + ".corrupt-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
	other, err := os.Stat(aside[0])
	require.NoError(t, err)
	require.False(t, os.SameFile(before, other))
	asUser(t, others, nobody, "user", path, "set")
}

// Where the file can be written to, but its directory cannot, there is no journal, and each write waits until it is in
// the file. A damaged file is made anew, and what it had is among the temporary files.
func TestPlaces_Directory(t *testing.T) {
	needsRoot(t)
	path := sharedPath(t, 0, 0, 0o755)
	db := cachetest.OpenUnchecked(t, path)
	require.NoError(t, db.Set("by root", "v", 0))
	require.NoError(t, db.Close())
	require.NoError(t, os.Chown(path, nobody, nobody))
	before, err := os.Stat(path)
	require.NoError(t, err)
	asUser(t, nobody, nobody, "user", path, "root's", "slow")
	asUser(t, nobody, nobody, "user", path, "root's", "slow")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)

	broken := cachetest.BreakFile(t, path)
	tmp, err := os.MkdirTemp("", "keepcache")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	require.NoError(t, os.Chmod(tmp, 0o1777))
	t.Setenv("TMPDIR", tmp)
	asUser(t, nobody, nobody, "user", path, "set", "quarantined")
	now, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, now))
	requireOwner(t, path, nobody, nobody, 0o600)
	kept, err := filepath.Glob(filepath.Join(tmp, "*"))
	require.NoError(t, err)
	require.Len(t, kept, 1)
	requireOwner(t, kept[0], nobody, nobody, 0o600)
	content, err := os.ReadFile(kept[0])
	require.NoError(t, err)
	require.True(t, bytes.Equal(broken, content))

	// An empty one is a new cache there as well.
	require.NoError(t, os.Truncate(path, 0))
	asUser(t, nobody, nobody, "user", path, "set")
	requireOwner(t, path, nobody, nobody, 0o600)
}

// A file that is mounted by itself, as a container has it, is used as any other, and is made anew in place when it is
// damaged.
func TestPlaces_Mount(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	for _, from := range []string{"empty", "cache"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			cmd := cachetest.ChildCommand("mounted", t.TempDir(), from)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			out, err := cmd.Output()
			if errors.Is(err, syscall.EPERM) {
				t.Skip("nothing can be mounted here: ", err)
			}
			require.NoError(t, err, string(out))
		})
	}
}

func mountedChild(t cachetest.Tester, args []string) {
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""))
	source, path := filepath.Join(args[0], "volume"), filepath.Join(args[0], "container", "test.cache")
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(source, nil, 0o640))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Chown(source, nobody, nobody))
	if args[1] == "cache" {
		db, err := cachetest.TryOpen(source, nil)
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
	require.NoError(t, syscall.Mount(source, path, "", syscall.MS_BIND, ""))

	var said logged
	o := &keepcache.Options{CompactBytes: 1 << 20, SweepInterval: -1, Logger: slog.New(slog.NewTextHandler(&said, nil))}
	db, err := cachetest.TryOpen(path, o)
	require.NoError(t, err)
	b := db.Bucket("b")
	for i := range 40 {
		cachetest.MustSet(t, b, fmt.Sprint(i), make([]byte, 100_000), 0)
	}
	cachetest.MustSet(t, b, "k", "v", 0)
	cachetest.Committed(t, db)
	require.ErrorIs(t, db.Compact(context.Background()), errors.ErrUnsupported)
	requireOwner(t, path, nobody, nobody, 0o640)
	require.NoError(t, db.Close())
	db, err = cachetest.TryOpen(path, o)
	require.NoError(t, err)
	b = db.Bucket("b")
	cachetest.RequireValue(t, b, "k", "v")
	for i := range 40 {
		_, err := b.Delete(fmt.Sprint(i))
		require.NoError(t, err)
	}
	cachetest.Committed(t, db)
	require.Eventually(t, func() bool { return db.Stats().Compact.Failed > 0 }, 20*time.Second, 10*time.Millisecond)
	time.Sleep(2500 * time.Millisecond) // a process of its own, in real time
	require.Equal(t, uint64(1), db.Stats().Compact.Failed)
	require.Equal(t, 1, strings.Count(said.String(), "compaction failed"), said.String())
	cachetest.MustSet(t, b, "in the journal", "v", 0)
	require.NoError(t, db.Close())

	cachetest.BreakFile(t, path)
	db, err = cachetest.TryOpen(path, o)
	require.NoError(t, err)
	aside := db.Stats().Health.Aside
	require.Equal(t, filepath.Dir(path), filepath.Dir(aside))
	requireOwner(t, aside, nobody, nobody, 0o640)
	cachetest.MustSet(t, db.Bucket("b"), "k", "w", 0)
	cachetest.Committed(t, db)

	// Damaged while it is open: cut short.
	require.NoError(t, os.Truncate(path, 4096))
	require.NoError(t, cachetest.AwaitHealed(db))
	require.Equal(t, uint64(2), db.Stats().Health.Quarantined)
	cachetest.RequireValue(t, db.Bucket("b"), "k", "w")
	require.NoError(t, db.Close())
	cachetest.CheckFile(t, path)
	requireOwner(t, path, nobody, nobody, 0o640)
	cachetest.CheckFile(t, source)
}
