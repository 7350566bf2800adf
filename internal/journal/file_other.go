//go:build !linux

package journal

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

func (f osFile) Datasync() error { return f.Sync() }

func (f osFile) Intact(size int64) error {
	st, err := f.Stat()
	if err == nil && st.Size() < size {
		err = errCut
	}
	return err
}

func (osFile) Map(int64, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func (osFile) Unmap([]byte) error { return nil }

// syncDir makes the name path durable. Windows cannot sync a directory, and journals its names.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
