package preflight

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
)

// The layout of a meta page, from bbolt's internal/common: a page header of 16 bytes (page number 8, flags 2, count 2,
// overflow 4), then magic, version, page size, flags (4 bytes each), root page and sequence, freelist page, page count,
// transaction id and a checksum (8 bytes each), in the byte order of the machine.
const (
	pageHeader = 16
	metaSize   = 64

	metaMagic     = 0
	metaVersion   = 4
	metaPageSize  = 8
	metaRoot      = 16
	metaFreelist  = 32
	metaPages     = 40
	metaTxid      = 48
	metaChecksum  = 56
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	noFreelist    = 1<<64 - 1
	firstPage     = 2 // after the two meta pages
	mostTxid      = 1 << 62
	leastPageSize = 1 << 10
	mostPageSize  = 1 << 16
	leastSize     = 1 << 12 // of a file that bbolt opens: it made four pages of 1 KiB or more

	// The sizes of pages for which bbolt looks for the second meta page if the first is damaged: 1 KiB to 16 MiB.
	probes = 15
)

var native = binary.NativeEndian

// ErrNoDatabase is returned by Open for a file without a whole meta page.
var ErrNoDatabase = errors.New("it is no bbolt file, or both its meta pages are damaged")

// File is a bbolt file of which the meta pages have been read. It may be used by one goroutine at a time.
type File struct {
	r        io.ReaderAt
	size     int64
	pageSize int64
	slot     int64 // the number of the meta page that bbolt will use
	meta     [metaSize]byte
	reached  []uint64 // a bit for each page that is in use, once Check has accepted all
}

// Open reads the meta pages of a file of so many bytes and chooses one as bbolt does. It returns ErrNoDatabase, a
// *Damage, or the error of a read.
func Open(r io.ReaderAt, size int64) (*File, error) {
	if size < leastSize {
		return nil, ErrNoDatabase
	}
	f := &File{r: r, size: size}
	var page [pageHeader + metaSize]byte
	whole, err := f.readMeta(0, &page)
	if err != nil {
		return nil, err
	}
	// Where the first meta page is damaged, the second is one page further, of whatever size pages are.
	for i := 0; i < probes && !whole; i++ {
		at := int64(leastPageSize) << i
		if at >= size-leastPageSize {
			break
		}
		if whole, err = f.readMeta(at, &page); err != nil {
			return nil, err
		}
	}
	if !whole {
		return nil, ErrNoDatabase
	}
	f.pageSize = int64(native.Uint32(page[pageHeader+metaPageSize:]))
	if f.pageSize < leastPageSize || f.pageSize > mostPageSize || f.pageSize&(f.pageSize-1) != 0 {
		return nil, damage(0, "pages of %d bytes", f.pageSize)
	}
	found := false
	for slot := range int64(2) {
		if whole, err = f.readMeta(slot*f.pageSize, &page); err != nil {
			return nil, err
		}
		if whole && (!found || native.Uint64(page[pageHeader+metaTxid:]) > f.txid()) {
			f.slot, found = slot, true
			copy(f.meta[:], page[pageHeader:])
		}
	}
	if !found {
		return nil, ErrNoDatabase
	}
	return f, f.checkMeta()
}

// readMeta reads what may be a meta page at an offset, and reports whether it is a whole one.
func (f *File) readMeta(at int64, page *[pageHeader + metaSize]byte) (whole bool, err error) {
	if at+int64(len(page)) > f.size {
		return false, nil
	}
	if err := f.readAt(page[:], at); err != nil {
		return false, err
	}
	meta := page[pageHeader:]
	sum := fnv.New64a()
	sum.Write(meta[:metaChecksum])
	return native.Uint32(meta[metaMagic:]) == boltMagic && native.Uint32(meta[metaVersion:]) == boltVersion &&
		native.Uint64(meta[metaChecksum:]) == sum.Sum64(), nil
}

func (f *File) checkMeta() error {
	slot, pages := uint64(f.slot), f.pages()
	switch root, list := native.Uint64(f.meta[metaRoot:]), f.freelist(); {
	case pages > uint64(f.size/f.pageSize):
		return damage(slot, "the file is cut short, it has %d of %d pages", f.size/f.pageSize, pages)
	case root < firstPage || root >= pages:
		return damage(slot, "the root is page %d of %d", root, pages)
	case list != noFreelist && (list < firstPage || list >= pages):
		return damage(slot, "the list of free pages is page %d of %d", list, pages)
	case int64(native.Uint32(f.meta[metaPageSize:])) != f.pageSize:
		return damage(slot, "the meta pages disagree about the size of a page")
	case f.txid() >= mostTxid:
		return damage(slot, "transaction %d", f.txid())
	}
	return nil
}

// readAt fills p. The end of the file within p is damage: somebody cut it while it is checked.
func (f *File) readAt(p []byte, at int64) error {
	n, err := f.r.ReadAt(p, at)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return damage(0, "the file ends before byte %d", at+int64(len(p)))
	}
	return err
}

func (f *File) txid() uint64     { return native.Uint64(f.meta[metaTxid:]) }
func (f *File) pages() uint64    { return native.Uint64(f.meta[metaPages:]) }
func (f *File) freelist() uint64 { return native.Uint64(f.meta[metaFreelist:]) }
func (f *File) root() uint64     { return native.Uint64(f.meta[metaRoot:]) }

// PageSize returns the size of a page in bytes.
func (f *File) PageSize() int { return int(f.pageSize) }

// Pages returns how many pages the file uses, free ones included.
func (f *File) Pages() uint64 { return f.pages() }
