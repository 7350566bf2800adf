package jsonpack

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// prealloc is how many bytes are allocated ahead, all in all, for one byte of
// data. Sound data never wants more, except for slices of very large elements,
// which then grow step by step.
const prealloc = 32

// decoder is the state of one Unmarshal.
type decoder struct {
	data   []byte
	off    int
	depth  int
	budget int // bytes that may still be allocated ahead

	saved error    // the first error that did not stop the decoding
	path  []*field // the struct fields around the current value

	text    []byte // what methods are given; they may keep it, so it is not pooled
	scratch []byte // what nobody keeps
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// release gives d back to the pool without what belongs to the caller.
func (d *decoder) release() {
	d.data, d.text, d.saved = nil, nil, nil
	d.off, d.depth = 0, 0
	d.path = d.path[:0]
	if cap(d.scratch) > maxPooled {
		d.scratch = nil
	}
	decoders.Put(d)
}

// top decodes into the destination that the caller gave. The plainest ones take
// no reflection.
func (d *decoder) top(dst any) error {
	switch p := dst.(type) {
	case *any:
		if p != nil && *p == nil {
			return d.intoAny(p)
		}
	case *string:
		if p != nil {
			return d.intoString(p)
		}
	case *[]byte:
		if p != nil {
			return d.intoBytes(p)
		}
	case *map[string]any:
		if p != nil {
			return d.intoMapAny(p)
		}
	case *[]any:
		if p != nil {
			return intoSlice(d, p, (*decoder).intoAny)
		}
	case *[]string:
		if p != nil {
			return intoSlice(d, p, (*decoder).intoString)
		}
	}
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return &json.InvalidUnmarshalError{Type: reflect.TypeOf(dst)}
	}
	if p := decPlans.get(v.Type()); !p.odd {
		return p.elem.body(d, v.Elem())
	}
	return d.odd(v)
}

// save records an error that does not stop the decoding.
func (d *decoder) save(err error) {
	if d.saved == nil {
		d.saved = d.located(err)
	}
}

// located adds the place in the destination to err, as encoding/json does.
func (d *decoder) located(err error) error {
	mismatch, ok := err.(*json.UnmarshalTypeError)
	if !ok || len(d.path) == 0 {
		return err
	}
	var names []string
	for _, f := range d.path {
		names = append(names, f.path...)
	}
	if mismatch.Field != "" {
		names = append(names, mismatch.Field)
	}
	mismatch.Struct = d.path[len(d.path)-1].owner.Name()
	mismatch.Field = strings.Join(names, ".")
	return err
}

// mismatch records that what the destination of type t got does not fit it.
func (d *decoder) mismatch(what string, t reflect.Type) {
	if d.saved == nil {
		d.save(&json.UnmarshalTypeError{Value: what, Type: t, Offset: int64(d.off)})
	}
}

// misfit is mismatch for a number that the type t cannot hold.
func (d *decoder) misfit(h head, lit []byte, t reflect.Type) {
	if d.saved == nil {
		d.mismatch("number "+string(h.appendText(nil, lit)), t)
	}
}

func (d *decoder) corrupt() error {
	return corrupt("unknown or impossible value", d.off)
}

// head reads the start of the next value and moves behind it. The content of
// what is no container is d.content(h), and must be read or skipped.
func (d *decoder) head() head {
	h, next := readHead(d.data, d.off)
	if h.kind != kindBad {
		d.off = next
	}
	return h
}

// content returns the content of a string, a binary or a number and moves
// behind it. It points into data.
func (d *decoder) content(h head) []byte {
	start := d.off
	d.off += h.n
	return d.data[start:d.off]
}

// skip moves behind the next value.
func (d *decoder) skip() error {
	next := skipValue(d.data, d.off)
	if next < 0 {
		return d.corrupt()
	}
	d.off = next
	return nil
}

// isNull reports whether the next value is null.
func (d *decoder) isNull() bool {
	return d.off < len(d.data) && codes[d.data[d.off]].class == classNil
}

// enter goes one container deeper.
func (d *decoder) enter() error {
	if d.depth >= MaxDepth {
		return corrupt("nested too deeply", d.off)
	}
	d.depth++
	return nil
}

// ahead returns how many of n members of size bytes each to make room for now.
func (d *decoder) ahead(n, size int) int {
	size = max(size, 1)
	n = min(n, d.budget/size)
	d.budget -= n * size
	return n
}

// number returns the content of h if it is a number's literal; an error if
// that is malformed.
func (d *decoder) number(h head) ([]byte, error) {
	if h.kind != kindNum {
		return nil, nil
	}
	lit := d.content(h)
	if !validNumber(lit) {
		return nil, corrupt("malformed number", d.off)
	}
	return lit, nil
}

// literal returns the text of a number in scratch memory.
func (d *decoder) literal(h head, lit []byte) []byte {
	if h.kind == kindNum {
		return lit
	}
	d.scratch = h.appendText(d.scratch[:0], nil)
	return d.scratch
}

// mapEntry is roughly what an entry of a map[string]any costs in bytes.
const mapEntry = 56

var float64Type = reflect.TypeFor[float64]()

// any decodes the next value as an any.
func (d *decoder) any() (any, error) {
	h := d.head()
	switch h.kind {
	case kindNil:
		return nil, nil
	case kindBool:
		return h.bits != 0, nil
	case kindInt:
		return int64(h.bits), nil
	case kindUint:
		return h.bits, nil
	case kindFloat64:
		return math.Float64frombits(h.bits), nil
	case kindStr:
		return string(d.content(h)), nil
	case kindBin:
		return base64.StdEncoding.EncodeToString(d.content(h)), nil
	case kindFloat32, kindNum:
		lit, err := d.number(h)
		if err != nil {
			return nil, err
		}
		v, _ := d.numberAny(h, lit)
		return v, nil
	case kindArray:
		return d.sliceAny(h.n)
	case kindMap:
		m := make(map[string]any, d.ahead(h.n, mapEntry))
		return m, d.fillMapAny(m, h.n)
	}
	return nil, d.corrupt()
}

// numberAny returns what an any gets for a number that is no plain one. A float
// beyond float64 is an error that does not stop the decoding.
func (d *decoder) numberAny(h head, lit []byte) (v any, ok bool) {
	if h.kind == kindNum && isInteger(lit) && string(lit) != "-0" {
		if len(lit) <= 20 { // Append writes integers of 64 bits as such, others may not
			if n, err := strconv.ParseInt(string(lit), 10, 64); err == nil {
				return n, true
			}
			if n, err := strconv.ParseUint(string(lit), 10, 64); err == nil {
				return n, true
			}
		}
		return json.Number(lit), true
	}
	if f, ok := h.float64(); ok {
		return f, true
	}
	text := d.literal(h, lit)
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		d.misfit(h, lit, float64Type)
		return nil, false
	}
	return f, true
}

func (d *decoder) sliceAny(n int) ([]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	s := make([]any, 0, d.ahead(n, 16))
	for range n {
		v, err := d.any()
		if err != nil {
			return nil, err
		}
		s = append(s, v)
	}
	d.depth--
	return s, nil
}

// fillMapAny decodes n pairs into m.
func (d *decoder) fillMapAny(m map[string]any, n int) error {
	if err := d.enter(); err != nil {
		return err
	}
	for range n {
		key, err := d.key()
		if err != nil {
			return err
		}
		k := string(key)
		v, err := d.any()
		if err != nil {
			return err
		}
		m[k] = v
	}
	d.depth--
	return nil
}

// key reads an object's key. It points into data.
func (d *decoder) key() ([]byte, error) {
	if off := d.off; off < len(d.data) {
		if c := codes[d.data[off]]; c.class == classFixStr && int(c.arg) < len(d.data)-off {
			d.off += int(c.size)
			return d.data[off+1 : d.off], nil
		}
	}
	h := d.head()
	if h.kind != kindStr {
		return nil, corrupt("map key is no string", d.off)
	}
	return d.content(h), nil
}

// unfit records that the value with head h, which was read last, does not fit
// the type t, and moves behind it.
func (d *decoder) unfit(h head, t reflect.Type) error {
	what, members := "number", 0
	switch h.kind {
	case kindBad:
		return d.corrupt()
	case kindNil:
		return nil // null leaves what cannot be nil as it is
	case kindBool:
		what = "bool"
	case kindStr, kindBin:
		what = "string"
	case kindArray:
		what, members = "array", h.n
	case kindMap:
		what, members = "object", 2*h.n
	}
	d.mismatch(what, t)
	if members == 0 && h.kind != kindArray && h.kind != kindMap {
		d.off += h.n
	}
	for range members {
		if err := d.skip(); err != nil {
			return err
		}
	}
	return nil
}
