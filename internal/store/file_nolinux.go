//go:build !linux

package store

import "os"

// sizeOfFile returns the size of an open file in bytes. It does not find out whether the file still has a name.
func sizeOfFile(f *os.File) (size int64, removed bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	return info.Size(), false, nil
}
