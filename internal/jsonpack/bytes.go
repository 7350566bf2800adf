package jsonpack

import "math"

// AppendBytes is Append for a []byte, without the detour of an any. A nil slice
// is stored as an empty binary, not as null.
func AppendBytes(dst, b []byte, limit int) ([]byte, error) {
	if b == nil {
		b = []byte{}
	}
	most := math.MaxInt
	if limit > 0 && limit < math.MaxInt-len(dst) {
		most = len(dst) + limit
	}
	out, err := appendBytes(dst, b, most)
	if err == nil && len(out) > most {
		err = errLimit
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Bytes returns the content of the binary that data is, as a part of data. It
// reports false if data is another value, which only Unmarshal can read.
func Bytes(data []byte) (b []byte, ok bool) {
	h, off := readHead(data, 0)
	if h.kind != kindBin || off+h.n != len(data) {
		return nil, false
	}
	return data[off:len(data):len(data)], true
}
