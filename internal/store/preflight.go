package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/preflight"
)

// ShallowBytes bounds how many bytes of leaves Open checks in a file that was closed cleanly. All other pages, about a
// hundredth of the file, are always checked. As long as the file is only read, the guard and the checksums protect from
// damage in the other leaves. 16 MiB take about 10 ms. Only tests change it.
var ShallowBytes = 16 << 20

// maxCheckedBytes is the size up to which a file is checked completely before its first change. That takes about as
// long as reading it, and is over before writers have to wait. Larger files rely on the guard and the checksums.
const maxCheckedBytes = 2 << 30

// fileLayout says which buckets a cache file has.
var fileLayout = preflight.Layout{
	Plain: []string{
		string(format.MetaBucket), string(format.BucketsBucket), string(format.ExpiryBucket),
		string(format.UsageBucket), string(format.TagsBucket), string(format.CostsBucket),
	},
	Nested: string(format.EntriesBucket),
}

// fileTraces are the buckets by which the root of a cache file is recognised.
var fileTraces = []string{
	string(format.MetaBucket), string(format.BucketsBucket), string(format.EntriesBucket),
	string(format.ExpiryBucket), string(format.UsageBucket),
}

// Without switches protections against damage off. Only tests set it, to show that they would notice.
var Without struct{ Preflight, Guard bool }

// examined is the result of examining a file before bbolt maps it.
type examined struct {
	clean     bool // it was closed cleanly and has not changed since
	unchecked bool // some of its leaves were not checked
	listed    bool // it stores a list of its free pages
	free      int  // number of pages in the list
}

// examine checks that f is a cache file with which bbolt can work. It returns errs.ErrFormat for another kind of file
// or another format version, errs.ErrCorrupt for a damaged cache, and the error of a failed read as it is. It reads a
// file once completely if the file was not closed cleanly or has changed since.
//
// With trusting, examine believes the file's own mark that it was closed cleanly. writable says that the caller holds
// the lock for writing; then a sound file without a list of its free pages gets one.
func examine(f *os.File, info os.FileInfo, writable, trusting bool) (found examined, err error) {
	if err := Unfinished(f, info.Size()); err != nil {
		return found, err
	}
	file, err := preflight.Open(disk.In(f), info.Size())
	var version []byte
	if err == nil {
		version, err = file.Get(string(format.MetaBucket), string(format.MetaFormat))
	}
	if err == nil && version != nil {
		err = checkFormat(version)
	}
	if err == nil && version == nil || isDamage(err) {
		return found, unrecognised(f, info.Size(), err)
	}
	if err != nil {
		return found, err
	}
	most := math.MaxInt
	if trusting {
		if found.clean, err = file.Clean(info.ModTime()); err != nil {
			return found, err
		}
		if found.clean {
			most = ShallowBytes / file.PageSize()
			found.unchecked = info.Size() > int64(ShallowBytes)
		}
	}
	if Without.Preflight {
		return found, nil
	}
	if err = file.Check(fileLayout, most); isDamage(err) {
		return found, fmt.Errorf("%w: %w", errs.ErrCorrupt, err)
	}
	if err == nil && writable {
		// If that fails, bbolt finds the free pages itself. If the disk has a problem, the next write reports it.
		_, _ = file.StoreList(disk.In(f))
	}
	found.free, found.listed = file.Free()
	return found, err
}

// checkLeaves checks the leaves that examine left out, before the first change of the file. bbolt trusts the pages that
// it replaces: one that claims to be 2^31 pages long would put as many into its list of free pages, which takes hours
// and all memory. The caller has the write token.
func (h *Handle) checkLeaves() error {
	if !h.found.unchecked || h.size.Load() > maxCheckedBytes || Without.Preflight {
		return nil
	}
	file, err := preflight.Open(disk.In(h.file), h.size.Load())
	if err == nil {
		err = file.Check(fileLayout, math.MaxInt)
	}
	if isDamage(err) {
		h.Poison(Failure{Err: fmt.Errorf("%w: %w", errs.ErrCorrupt, err)})
		return h.Err()
	}
	h.found.unchecked = err != nil
	return err
}

func isDamage(err error) bool {
	var d *preflight.Damage
	return errors.As(err, &d) || errors.Is(err, preflight.ErrNoDatabase)
}

var currentFormat = binary.BigEndian.AppendUint32(nil, format.Version)

// checkFormat returns errs.ErrFormat for any format version but ours.
func checkFormat(version []byte) error {
	switch {
	case bytes.Equal(version, currentFormat):
		return nil
	case len(version) != len(currentFormat):
		return errs.ErrFormat
	}
	return fmt.Errorf("%w: it has format %d, this version reads %d",
		errs.ErrFormat, binary.BigEndian.Uint32(version), format.Version)
}

// unrecognised returns the error for a file whose format version cannot be read, because of why unless that is nil. The
// error is ErrCorrupt if the file has traces of a cache, and ErrFormat otherwise.
func unrecognised(f *os.File, size int64, why error) error {
	ours, version, err := traces(f, size)
	switch {
	case err != nil:
		return err
	case !ours && why == nil:
		return errs.ErrFormat
	case !ours:
		return fmt.Errorf("%w: %w", errs.ErrFormat, why)
	case version != nil && !bytes.Equal(version, currentFormat):
		return checkFormat(version)
	case why == nil:
		why = errors.New("bucket meta is missing")
	}
	return fmt.Errorf("%w: %w", errs.ErrCorrupt, why)
}

// minTraces is how many index rows show that a file is a cache. A foreign value passes the check of a row by chance in
// one of 65,536 cases.
const minTraces = 4

// traces searches a file in any state for what only caches have: a root with our buckets, of which most files have old
// ones, or a few index rows. If it finds a root, it returns its format version.
func traces(f *os.File, size int64) (ours bool, version []byte, err error) {
	rows := 0
	err = preflight.Leaves(f, size, func(leaf []preflight.Element) bool {
		roots := 0
		for _, e := range leaf {
			switch {
			case e.Bucket && slices.Contains(fileTraces, string(e.Key)):
				if roots++; string(e.Key) == string(format.MetaBucket) {
					version = formatOf(&e)
				}
			case !e.Bucket && len(e.Value) > format.RowSize+format.HeaderSize:
				if row, _ := format.SplitRow(e.Value, e.Key); row != format.UnknownRow {
					rows++
				}
			}
		}
		if roots < len(fileTraces) {
			version = nil
			return true
		}
		ours = true
		return false
	})
	return ours || rows >= minTraces, version, err
}

func formatOf(meta *preflight.Element) []byte {
	for _, e := range meta.Inline() {
		if string(e.Key) == string(format.MetaFormat) {
			return bytes.Clone(e.Value)
		}
	}
	return nil
}

// markClean marks the file at path as closed cleanly. It must be the file that info describes, and the caller must hold
// its lock.
func markClean(in *disk.Dir, path string, info os.FileInfo) error {
	f, err := in.OpenFile(path, os.O_RDWR|openFlags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, now) {
		return ErrMoved
	}
	file, err := preflight.Open(disk.In(f), now.Size())
	if err != nil {
		return err
	}
	// Writing the mark changes the modification time. So set it back, without the part that not every file system keeps.
	changed := now.ModTime().Truncate(preflight.MarkPrecision)
	if err := file.Mark(disk.In(f), changed); err != nil {
		return err
	}
	return in.Chtimes(path, time.Time{}, changed)
}
