package preflight

import "io"

// traceBytes is how much of the file is looked at once for leaves: at least twice mostPageSize.
const traceBytes = 1 << 20

// Element is one of a leaf.
type Element struct {
	Key, Value []byte // good until the next leaf
	Bucket     bool
}

// Inline returns the elements of a bucket that lies within its element, or nil where it does not, or is damaged.
func (e *Element) Inline() []Element {
	if !e.Bucket || len(e.Value) < bucketHeader+pageHeader {
		return nil
	}
	whole := element{bucket: true, value: int64(len(e.Value))}
	p, err := (&File{pageSize: mostPageSize}).inline(&page{span: whole.value, data: e.Value}, 0, &whole)
	if err != nil {
		return nil
	}
	return p.elements()
}

// Leaves calls fn for whatever looks like a leaf of at most 64 KiB, in a file of so many bytes in whatever state, until
// fn returns false. Many of them are no longer in use.
func Leaves(r io.ReaderAt, size int64, fn func([]Element) bool) error {
	f := &File{r: r, size: size}
	buffer := make([]byte, min(size, traceBytes))
	// Each piece overlaps the next by the longest page, so that every page is whole in one of them.
	for at := int64(0); at < size; at += traceBytes - mostPageSize {
		part := buffer[:min(int64(len(buffer)), size-at)]
		if err := f.readAt(part, at); err != nil {
			return err
		}
		for i := 0; i+leastPageSize <= len(part); i += leastPageSize {
			data := part[i:min(len(part), i+mostPageSize)]
			if native.Uint16(data[8:]) != flagLeaf {
				continue
			}
			p := page{leaf: true, count: int(native.Uint16(data[10:])), span: int64(len(data)), data: data}
			if found := p.elements(); len(found) > 0 && !fn(found) {
				return nil
			}
		}
	}
	return nil
}

// elements returns the elements of a page all of which is in data, or nil if they are damaged.
func (p *page) elements() (found []Element) {
	err := p.each(func(_ int, e *element) error {
		found = append(found, Element{e.key, p.data[e.at : e.at+e.value], e.bucket})
		return nil
	})
	if err != nil {
		return nil
	}
	return found
}
