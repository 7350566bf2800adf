package denied_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func init() {
	cachetest.Children["locked on btrfs"] = lockedOnBtrfs
	cachetest.Children["lock holder"] = func(t cachetest.Tester, args []string) {
		cachetest.Open(t, args[0], nil)
		fmt.Println("open")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	}
}

// needsDisk skips a test that mounts a disk of its own where that cannot be.
func needsDisk(t *testing.T, mkfs string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	for _, name := range []string{mkfs, "mount"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("there is no ", name)
		}
	}
}

// ErrLocked names the process that has the file also where a file's device is not that of its file system.
func TestOpen_LockedOnBtrfs(t *testing.T) {
	t.Parallel()
	needsDisk(t, "mkfs.btrfs")
	cmd := cachetest.ChildCommand("locked on btrfs", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	if why, ok := strings.CutPrefix(string(out), "skip: "); ok || errors.Is(err, syscall.EPERM) {
		t.Skip("a disk cannot be mounted here: ", why, err)
	}
	require.NoError(t, err, string(out))
}

func lockedOnBtrfs(t cachetest.Tester, args []string) {
	dir, image := filepath.Join(args[0], "disk"), filepath.Join(args[0], "image")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 128<<20))
	out, err := exec.Command("mkfs.btrfs", "-q", image).CombinedOutput()
	require.NoError(t, err, string(out))
	if err := mountImage("btrfs", "loop", image, dir); err != nil {
		fmt.Println("skip:", err)
		return
	}
	path := filepath.Join(dir, "test.cache")
	cmd := cachetest.ChildCommand("lock holder", path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	_, err = cachetest.TryOpen(path, &keepcache.Options{LockTimeout: 10 * time.Millisecond})
	require.ErrorIs(t, err, keepcache.ErrLocked)
	require.ErrorContains(t, err, fmt.Sprint("process ", cmd.Process.Pid))
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
}
