package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// diskBytes returns how many bytes all files in a directory have on disk.
func diskBytes(dir string) (total float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a peer at work removed it
		}
		if err == nil {
			total += float64(allocated(info))
		}
		return err
	})
	return total, err
}

// privateMemory returns the resident memory of this process without the files that it maps, or 0 where the
// system does not tell.
func privateMemory() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("RssAnon:")); ok {
			kib, err := strconv.ParseFloat(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 64)
			if err == nil {
				return kib * 1024
			}
		}
	}
	return 0
}

// watchMemory follows the private memory of the process until done is called, which returns its peak.
func watchMemory() (done func() float64) {
	const interval = 20 * time.Millisecond
	stop, peak := make(chan struct{}), make(chan float64)
	go func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		most := privateMemory()
		for {
			select {
			case <-stop:
				peak <- max(most, privateMemory())
				return
			case <-ticker.C:
				most = max(most, privateMemory())
			}
		}
	}()
	return func() float64 {
		close(stop)
		return <-peak
	}
}
