package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What no store can beat: appends of limitWrite bytes to a file that has its blocks already.
const (
	limitWrite = 256
	limitFile  = 64 << 20
	limitSlots = limitFile / limitWrite
)

// preallocated makes a file with real, written blocks.
func preallocated(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "limit"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < limitFile; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return nil, err
		}
	}
	return f, f.Sync()
}

// limitFlush measures fdatasync after each append.
func limitFlush(c *child) error {
	f, err := preallocated(c.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, limitWrite)
	return c.measure("sync-1", nil, load{goroutines: 1, duration: c.Time, every: 1, op: func(_, i int) (class, error) {
		if _, err := f.WriteAt(buf, int64(i%limitSlots)*limitWrite); err != nil {
			return write, err
		}
		return write, unix.Fdatasync(int(f.Fd()))
	}})
}

// limitAppend measures appends into the page cache, by a system call and through a map.
func limitAppend(c *child) error {
	f, err := preallocated(c.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, limitWrite)
	err = c.measure("append-call", nil, load{goroutines: 1, duration: c.Time, op: func(_, i int) (class, error) {
		_, err := f.WriteAt(buf, int64(i%limitSlots)*limitWrite)
		return write, err
	}})
	if err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, limitFile, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(mapped) }()
	return c.measure("append-map", nil, load{goroutines: 1, duration: c.Time, op: func(_, i int) (class, error) {
		copy(mapped[i%limitSlots*limitWrite:], buf)
		return write, nil
	}})
}
