package denied_test

import (
	"bytes"
	"context"
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

func init() { cachetest.Children["read-only disk"] = readOnlyDisk }

// A disk that the system makes read-only because of an error, under a running cache: writes that cannot be kept fail
// with the cause, reads go on, and when the disk is mounted anew the cache goes on there, with all that was
// acknowledged.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	needsDisk(t, "mkfs.ext4")
	for _, mode := range []string{"periodic", "always"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			cmd := cachetest.ChildCommand("read-only disk", t.TempDir(), mode)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			out, err := cmd.Output()
			if why, ok := strings.CutPrefix(string(out), "skip: "); ok || errors.Is(err, syscall.EPERM) {
				t.Skip("a disk cannot be made read-only here: ", why, err)
			}
			require.NoError(t, err, string(out))
			t.Log(strings.TrimSpace(string(out)))
		})
	}
}

func readOnlyDisk(t cachetest.Tester, args []string) {
	always := args[1] == "always"
	dir, image := filepath.Join(args[0], "disk"), filepath.Join(args[0], "image")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 32<<20))
	out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput()
	require.NoError(t, err, string(out))
	if err := mountImage("ext4", "loop,errors=remount-ro", image, dir); err != nil {
		fmt.Println("skip:", err)
		return
	}
	trigger := filepath.Join("/sys/fs/ext4", deviceAt(t, dir), "trigger_fs_error")
	if _, err := os.Stat(trigger); err != nil {
		fmt.Println("skip:", err)
		return
	}

	path := filepath.Join(dir, "test.cache")
	o := keepcache.Options{CommitInterval: 20 * time.Millisecond, MemoryBytes: 256 << 10, JournalBytes: 64 << 10,
		SweepInterval: -1}
	if always {
		o.Sync = keepcache.SyncAlways
	}
	db := cachetest.Open(t, path, &o)
	b := db.Bucket("b")
	const n = 1000 // of which memory has a part
	for i := range n {
		require.NoError(t, b.SetBytes(cachetest.Numbered(i), valueOf(i), time.Hour))
	}
	require.NoError(t, db.Sync(context.Background()))
	intact := func(b *keepcache.Bucket) {
		for i := range n {
			got, found, err := b.GetBytes(cachetest.Numbered(i))
			require.NoError(t, err)
			require.True(t, found && bytes.Equal(got, valueOf(i)), cachetest.Numbered(i))
		}
	}

	// Nothing is under way when the disk changes: ext4 lets a sync succeed then that it has not made. What fails because
	// of that may have another error than what comes later.
	cachetest.Committed(t, db)
	because := func(err error) {
		require.True(t, errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EIO), "%v", err)
	}
	require.NoError(t, os.WriteFile(trigger, []byte("1"), 0))
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o600), syscall.EROFS)
	var acked []string
	refused := 0
	for i := 0; refused < 5; i++ {
		require.Less(t, i, 1000, "it is written to a disk that takes nothing")
		start := time.Now()
		key := fmt.Sprint("late", i)
		if err := b.Set(key, key, time.Hour); err != nil {
			refused++
			because(err)
			require.ErrorContains(t, err, path)
		} else {
			acked = append(acked, key)
		}
		require.Less(t, time.Since(start), 10*time.Second)
		time.Sleep(5 * time.Millisecond) // a process of its own, in real time
	}
	require.True(t, !always || len(acked) == 0, "acknowledged though it cannot be durable: %v", acked)
	because(db.Sync(context.Background()))
	because(db.Stats().Commit.Err)
	intact(b)

	// What the disk has is what a process finds that comes after a restart of the machine.
	again := filepath.Join(args[0], "again")
	require.NoError(t, os.Mkdir(again, 0o700))
	content, err := os.ReadFile(image)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(again+".image", content, 0o600))
	require.NoError(t, mountImage("ext4", "loop,errors=remount-ro", again+".image", again))
	later := cachetest.Open(t, filepath.Join(again, "test.cache"), nil)
	intact(later.Bucket("b"))
	cachetest.Sound(t, later)
	require.NoError(t, later.Close())

	// And so it is mounted in the place of the other, under the running cache.
	require.NoError(t, syscall.Mount(again, dir, "", syscall.MS_BIND, ""))
	require.NoError(t, cachetest.AwaitHealed(db))
	intact(b)
	for _, key := range acked {
		cachetest.RequireValue(t, b, key, key)
	}
	cachetest.MustSet(t, b, "after", "after", time.Hour)
	cachetest.Sound(t, db)
	require.Equal(t, uint64(1), db.Stats().Health.Healed)
	db = cachetest.Reopen(t, db, path, nil)
	b = db.Bucket("b")
	intact(b)
	for _, key := range append(acked, "after") {
		cachetest.RequireValue(t, b, key, key)
	}
	require.NoError(t, db.Close())
	fmt.Printf("%d writes were acknowledged after the disk had become read-only\n", len(acked))
}

func valueOf(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 300) }

// mountImage mounts an image of a file system.
func mountImage(kind, options, image, dir string) error {
	out, err := exec.Command("mount", "-t", kind, "-o", options, image, dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// deviceAt returns the name of the device that is mounted at dir.
func deviceAt(t cachetest.Tester, dir string) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	device := ""
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[1] == dir {
			device = filepath.Base(fields[0])
		}
	}
	return device
}
