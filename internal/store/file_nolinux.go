//go:build !linux

package store

import "os"

// sizeOfFile returns the size of an open file in bytes. Whether it still has a name is left to whoever looks at that.
func sizeOfFile(f *os.File) (size int64, removed bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	return info.Size(), false, nil
}
