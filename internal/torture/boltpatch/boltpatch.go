// Package boltpatch builds test binaries with a copy of bbolt in which the calls to the file system go by way of
// package disk. bbolt offers no way to stand between it and its file, and only from there it can be seen what a power
// cut may leave and what follows when a call fails.
//
// A package that is to be built so imports this one, and looks at [Patched]. The copy is that of the version in go.mod,
// and is made anew each time; should bbolt change what is replaced here, Build says so.
package boltpatch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tag is the build tag of what is built so.
const Tag = "boltpatched"

// edits are what is replaced: by file, each text with what takes its place, and how often it has to be there.
var edits = map[string][]struct {
	old, new string
	times    int
}{
	"db.go": {
		{"db.ops.writeAt = db.file.WriteAt", "db.ops.writeAt = writerAt(db.file)", 1},
		{"db.file.ReadAt(", "readAt(db.file, ", 2},
		{"db.file.Truncate(", "truncate(db.file, ", 1},
		{"db.file.Sync()", "syncFile(db.file, db.file.Sync)", 1},
		{"db.file.Close()", "closeFile(db.file)", 1},
	},
	"bolt_linux.go": {
		{"return syscall.Fdatasync(int(db.file.Fd()))",
			"return syncFile(db.file, func() error { return syscall.Fdatasync(int(db.file.Fd())) })", 1},
	},
	"boltsync_unix.go": {
		{"return db.file.Sync()", "return syncFile(db.file, db.file.Sync)", 1},
	},
	"bolt_unix.go": {
		{"b, err := unix.Mmap(int(db.file.Fd()), 0, sz, syscall.PROT_READ, syscall.MAP_SHARED|db.MmapFlags)",
			"b, err := mapFile(db.file, func() ([]byte, error) { return unix.Mmap(int(db.file.Fd()), 0, sz, syscall.PROT_READ, syscall.MAP_SHARED|db.MmapFlags) })", 1},
		{"err := unix.Munmap(db.dataref)", "err := unmapFile(db.dataref, unix.Munmap)", 1},
	},
}

// between is the file that is added to bbolt.
const between = `package bbolt

import "os"

// Between stands in the place of each call to the file system.
var Between func(kind string, f *os.File, b []byte, off int64, do func() (int, []byte, error)) (int, []byte, error)

func writerAt(f *os.File) func([]byte, int64) (int, error) {
	return func(b []byte, off int64) (int, error) {
		n, _, err := Between("write", f, b, off, func() (int, []byte, error) { n, err := f.WriteAt(b, off); return n, nil, err })
		return n, err
	}
}

func readAt(f *os.File, b []byte, off int64) (int, error) {
	n, _, err := Between("read", f, b, off, func() (int, []byte, error) { n, err := f.ReadAt(b, off); return n, nil, err })
	return n, err
}

func truncate(f *os.File, size int64) error { return only("truncate", f, nil, size, func() error { return f.Truncate(size) }) }

func syncFile(f *os.File, do func() error) error { return only("sync", f, nil, 0, do) }

func closeFile(f *os.File) error { return only("close", f, nil, 0, f.Close) }

func mapFile(f *os.File, do func() ([]byte, error)) ([]byte, error) {
	_, b, err := Between("map", f, nil, 0, func() (int, []byte, error) { b, err := do(); return 0, b, err })
	return b, err
}

func unmapFile(b []byte, do func([]byte) error) error {
	return only("unmap", nil, b, 0, func() error { return do(b) })
}

func only(kind string, f *os.File, b []byte, off int64, do func() error) error {
	_, _, err := Between(kind, f, b, off, func() (int, []byte, error) { return 0, nil, do() })
	return err
}
`

// Edit breaks a file of this module, for a test to see whether that is found.
type Edit struct {
	File     string // its path in the module
	Old, New string // Old is there once
}

// Build builds the tests of the package in the current directory with the patched bbolt and with edits, and returns the
// path of the binary, which is removed when the test is over. It skips the test where there is no go command.
func Build(t testing.TB, breaks ...Edit) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command")
	}
	dir := t.TempDir()
	bolt := filepath.Join(dir, "bbolt")
	if err := copyBolt(bolt, strings.TrimSpace(output(t, "go", "list", "-m", "-f", "{{.Dir}}",
		"go.etcd.io/bbolt"))); err != nil {
		t.Fatal(err)
	}
	mod := strings.TrimSpace(output(t, "go", "env", "GOMOD"))
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(mod), name))
		if err == nil && name == "go.mod" {
			b = fmt.Appendf(b, "\nreplace go.etcd.io/bbolt => %s\n", bolt)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := overlayOf(dir, filepath.Dir(mod), breaks)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "patched.test")
	// Without paths in it, all but the linking comes out of the build cache from the second time on.
	output(t, "go", "test", "-c", "-trimpath", "-tags", Tag, "-modfile", filepath.Join(dir, "go.mod"), "-overlay",
		overlay, "-o", binary, ".")
	return binary
}

// overlayOf writes the edited files into dir, and a file for go build -overlay that puts them in the place of those in
// the module.
func overlayOf(dir, module string, breaks []Edit) (string, error) {
	replace := map[string]string{}
	for i, e := range breaks {
		path := filepath.Join(module, filepath.FromSlash(e.File))
		from := path
		if edited, ok := replace[path]; ok {
			from = edited
		}
		b, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if n := bytes.Count(b, []byte(e.Old)); n != 1 {
			return "", fmt.Errorf("%s has %q %d times", e.File, e.Old, n)
		}
		edited := filepath.Join(dir, fmt.Sprintf("edit%d.go", i))
		if err := os.WriteFile(edited, bytes.Replace(b, []byte(e.Old), []byte(e.New), 1), 0o600); err != nil {
			return "", err
		}
		replace[path] = edited
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}
	return string(out)
}

// copyBolt copies the source of bbolt that matters from one directory to another, and edits it.
func copyBolt(to, from string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "cmd" || rel == "tests" || rel == "scripts" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if rel != "go.mod" && (filepath.Ext(rel) != ".go" || strings.HasSuffix(rel, "_test.go")) {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, e := range edits[rel] {
			if n := bytes.Count(b, []byte(e.old)); n != e.times {
				return fmt.Errorf("bbolt's %s has %q %d times and not %d: it has changed, and so must the edits of package boltpatch", rel, e.old, n, e.times)
			}
			b = bytes.ReplaceAll(b, []byte(e.old), []byte(e.new))
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "between.go"), []byte(between), 0o600)
}
