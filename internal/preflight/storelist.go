package preflight

import "hash/fnv"

// Storage is a file that can be written.
type Storage interface {
	WriteAt(p []byte, at int64) (int, error)
	Sync() error
}

// StoreList stores a list of the free pages in a file that has none and that Check has accepted as a whole, and
// does nothing otherwise. bbolt would look for them itself when it opens the file, page by page through its map, which
// takes longer than all of Check. It is what a transaction of bbolt does that changes nothing: the list is
// written behind the pages in use and synced, and then the other, older meta page is, so that at each moment one of
// the two is whole. stored says that it is done; an error before that has changed nothing that bbolt looks at.
func (f *File) StoreList(w Storage) (stored bool, err error) {
	// bbolt alternates between the meta pages by the number of the transaction.
	if f.freelist() != noFreelist || f.reached == nil || int64(f.txid()%2) != f.slot {
		return false, nil
	}
	free := make([]uint64, 1, 64) // its first element is there for the count
	for id := uint64(firstPage); id < f.pages(); id++ {
		if f.reached[id/64]&(1<<(id%64)) == 0 {
			free = append(free, id)
		}
	}
	count := len(free) - 1
	head := uint16(count)
	if free[0] = uint64(count); count < 0xFFFF {
		free = free[1:]
	} else {
		head = 0xFFFF
	}
	span := (pageHeader + int64(len(free))*8 + f.pageSize) / f.pageSize * f.pageSize
	list, id := make([]byte, span), f.pages()
	native.PutUint64(list, id)
	native.PutUint16(list[8:], flagList)
	native.PutUint16(list[10:], head)
	native.PutUint32(list[12:], uint32(span/f.pageSize)-1)
	for i, n := range free {
		native.PutUint64(list[pageHeader+8*i:], n)
	}
	if _, err := w.WriteAt(list, int64(id)*f.pageSize); err != nil {
		return false, err
	}
	if err := w.Sync(); err != nil {
		return false, err
	}
	next := *f
	next.slot, next.size = 1-f.slot, max(f.size, int64(id)*f.pageSize+span)
	native.PutUint64(next.meta[metaFreelist:], id)
	native.PutUint64(next.meta[metaPages:], id+uint64(span/f.pageSize))
	native.PutUint64(next.meta[metaTxid:], f.txid()+1)
	sum := fnv.New64a()
	sum.Write(next.meta[:metaChecksum])
	native.PutUint64(next.meta[metaChecksum:], sum.Sum64())
	page := make([]byte, f.pageSize)
	native.PutUint64(page, uint64(next.slot))
	native.PutUint16(page[8:], flagMeta)
	copy(page[pageHeader:], next.meta[:])
	if _, err := w.WriteAt(page, next.slot*f.pageSize); err != nil {
		return false, err
	}
	if err := w.Sync(); err != nil {
		return false, err
	}
	*f = next
	return true, nil
}
