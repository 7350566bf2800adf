package preflight

import (
	"hash/crc32"
	"io"
	"time"
)

// A clean mark says that the file was closed in order and what it looked like then: which transaction was its last,
// by number and by the checksum of its meta page, how long the file was, and when it was last changed. It lies in
// the part of the other, older meta page that bbolt does not use, where the next transaction overwrites it.
// Whatever changes the file in another way moves the time of its last change.
const (
	markAt   = 512 // in the meta page: in another sector than what bbolt has there
	markSize = 44

	markMagic = "kcclean1"
	markTxid  = 8
	markMeta  = 16 // checksum of the meta page
	markBytes = 24 // size of the file
	markTime  = 32 // unix nanoseconds
	markSum   = 40 // CRC-32C of what stands before it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarkPrecision is the precision of the times of a mark. Where the file system keeps coarser ones no mark ever holds.
const MarkPrecision = time.Microsecond

// Clean reports whether the file has a clean mark that holds, and a list of its free pages. changed is when it was last
// changed.
func (f *File) Clean(changed time.Time) (bool, error) {
	if f.freelist() == noFreelist {
		return false, nil
	}
	var has [markSize]byte
	if err := f.readAt(has[:], f.markPlace()); err != nil {
		return false, err
	}
	return has == f.mark(changed), nil
}

// Mark writes a clean mark that holds as long as the file was last changed at the given time, which the caller then has
// to see to, and the file is as it is. It does nothing for a file without a list of its free pages.
func (f *File) Mark(w io.WriterAt, changed time.Time) error {
	if f.freelist() == noFreelist {
		return nil
	}
	mark := f.mark(changed)
	_, err := w.WriteAt(mark[:], f.markPlace())
	return err
}

func (f *File) markPlace() int64 { return (1-f.slot)*f.pageSize + markAt }

func (f *File) mark(changed time.Time) (mark [markSize]byte) {
	copy(mark[:], markMagic)
	native.PutUint64(mark[markTxid:], f.txid())
	native.PutUint64(mark[markMeta:], native.Uint64(f.meta[metaChecksum:]))
	native.PutUint64(mark[markBytes:], uint64(f.size))
	native.PutUint64(mark[markTime:], uint64(changed.UnixNano()))
	native.PutUint32(mark[markSum:], crc32.Checksum(mark[:markSum], castagnoli))
	return mark
}
