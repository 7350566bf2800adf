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

// ShallowBytes is up to how many bytes of leaves are proved when a file is opened that was closed in order; more are left to
// the guard and to the checksums as long as the file is only read, and all the rest, about a hundredth of a file, is proved in
// any case. 16 MiB take about 10 ms. Only tests change it.
var ShallowBytes = 16 << 20

// provedMost is up to which size a file is proved in full before it is changed for the first time, which takes about as long
// as reading it and is over before writers have to wait. With larger ones it stays at the guard and the checksums.
const provedMost = 2 << 30

// fileLayout is which buckets lie where.
var fileLayout = preflight.Layout{
	Plain:  []string{string(format.MetaBucket), string(format.BucketsBucket), string(format.ExpiryBucket), string(format.UsageBucket), string(format.TagsBucket), string(format.CostsBucket)},
	Nested: string(format.EntriesBucket),
}

// fileTraces are the buckets by which a root of ours is known.
var fileTraces = []string{string(format.MetaBucket), string(format.BucketsBucket), string(format.EntriesBucket), string(format.ExpiryBucket), string(format.UsageBucket)}

// Without switches off what stands between damage and the caller. Only tests set it: what they find then shows that
// they would find it.
var Without struct{ Preflight, Guard bool }

// examined is what a look at a file found before bbolt maps it.
type examined struct {
	clean    bool // it was closed in order, and nothing has changed it since
	unproved bool // leaves of it have not been looked at
	listed   bool // it stores a list of its free pages
	free     int  // how many pages are in the list
}

// examine proves that f is a file of ours with which bbolt can work. It returns errs.ErrFormat for a file that is none,
// or of another format, errs.ErrCorrupt for one of ours that is damaged, and the error of a read as it is. A file that
// was not closed in order, or that was changed since, is read once.
//
// trusting lets the file's own word for it count that it was closed in order. If writable says that the caller holds
// the lock to write, a sound file without a list of its free pages gets one.
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
			found.unproved = info.Size() > int64(ShallowBytes)
		}
	}
	if Without.Preflight {
		return found, nil
	}
	if err = file.Check(fileLayout, most); isDamage(err) {
		return found, fmt.Errorf("%w: %w", errs.ErrCorrupt, err)
	}
	if err == nil && writable {
		// Where that fails, bbolt looks for the free pages itself. What is wrong with the disk the next write will tell.
		_, _ = file.StoreList(disk.In(f))
	}
	found.free, found.listed = file.Free()
	return found, err
}

// prove looks at the leaves that examine has left out, before the file is changed for the first time: bbolt believes what it
// finds in the pages that it replaces, and one that claims to be 2^31 pages long has it put as many into its list of
// free pages, in hours and all memory. The caller has the token of writing.
func (h *Handle) prove() error {
	if !h.found.unproved || h.size.Load() > provedMost || Without.Preflight {
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
	h.found.unproved = err != nil
	return err
}

func isDamage(err error) bool {
	var d *preflight.Damage
	return errors.As(err, &d) || errors.Is(err, preflight.ErrNoDatabase)
}

var currentFormat = binary.BigEndian.AppendUint32(nil, format.Version)

// checkFormat returns errs.ErrFormat for what is not the format that we read.
func checkFormat(version []byte) error {
	switch {
	case bytes.Equal(version, currentFormat):
		return nil
	case len(version) != len(currentFormat):
		return errs.ErrFormat
	}
	return fmt.Errorf("%w: it has format %d, this version reads %d", errs.ErrFormat, binary.BigEndian.Uint32(version), format.Version)
}

// unrecognised returns the error for a file whose format cannot be read, because of why where that is not nil: damage if
// there are traces of a cache in it, else it is none of ours.
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

// tracesEnough is how many index rows of ours tell that a file is one. The check of each is right by chance in one of
// 65,536 cases.
const tracesEnough = 4

// traces looks through a file, in whatever state it is, for what only ours have: a root with our buckets, such as old
// ones lie about in most files, or a few index rows. Where it finds a root it returns the version of the format that it has.
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
	return ours || rows >= tracesEnough, version, err
}

func formatOf(meta *preflight.Element) []byte {
	for _, e := range meta.Inline() {
		if string(e.Key) == string(format.MetaFormat) {
			return bytes.Clone(e.Value)
		}
	}
	return nil
}

// markClean marks the file at path, which must be the one that info describes and whose lock the caller holds, as
// closed in order.
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
	// The mark itself changes the file. So the time of the last change is set back to what it was, less the part that
	// not every file system keeps.
	changed := now.ModTime().Truncate(preflight.MarkPrecision)
	if err := file.Mark(disk.In(f), changed); err != nil {
		return err
	}
	return in.Chtimes(path, time.Time{}, changed)
}
