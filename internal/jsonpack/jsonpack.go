// Package jsonpack keeps JSON values as msgpack.
//
// Whatever encoding/json can marshal, Append can; and Unmarshal leaves in a
// destination what json.Unmarshal leaves there when it reads what json.Marshal
// wrote, and fails where that fails. Two things are better: an integer read
// into an any is an int64 (a uint64 above MaxInt64, a json.Number beyond
// that), and a float stays a float64 even when it has no fraction.
//
// # Format
//
// A strict subset of msgpack (github.com/msgpack/msgpack/blob/master/spec.md),
// which any msgpack library reads:
//
//   - null, booleans, strings and arrays as themselves; objects as maps with
//     string keys, in the order in which encoding/json writes them
//   - integers in the fewest bytes
//   - float64 and float32 as such; both are finite
//   - []byte as a binary; to JSON it is its base64 text
//   - a number whose literal none of these renders as (1.50, 1e2, 10^40) as an
//     extension of type 78 ('N') that holds the literal, at most 1 MiB of it
//
// Scan accepts exactly this subset, in any of msgpack's widths. Whoever reads
// bytes that he did not write scans them first.
package jsonpack

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

var (
	// ErrUnsupported is wrapped by the error for a value, or a JSON text, that
	// cannot be stored: a channel, a NaN, a cycle, nesting beyond MaxDepth, a
	// syntax error. The cause is wrapped as well.
	ErrUnsupported = errors.New("unsupported value")
	// ErrTooLarge is wrapped by the error for a value beyond the caller's limit
	// or the format's own: 4 GiB for a string, 1 MiB for a number's literal.
	ErrTooLarge = errors.New("value too large")
	// ErrCorrupt is wrapped by the error for bytes that Append did not write.
	ErrCorrupt = errors.New("corrupt value")
)

// MaxDepth is how many arrays, slices, maps and structs can lie within each
// other. encoding/json itself reads 10,000 levels.
const MaxDepth = 1000

// maxHops is how many pointers can lie within each other on the way to a value.
// It ends a cycle of pointers that passes no container.
const maxHops = 10 * MaxDepth

// Append appends the msgpack of v to dst and returns the longer slice. limit is
// the largest size of the encoded value in bytes; past it Append returns
// ErrTooLarge, without first building the whole of it. Zero or less is no limit.
// On any error Append returns dst as it was. A panic of a MarshalJSON or
// MarshalText method passes through.
//
// Append may be called concurrently; v must not change meanwhile.
func Append(dst []byte, v any, limit int) ([]byte, error) {
	most := math.MaxInt
	if limit > 0 && limit < math.MaxInt-len(dst) {
		most = len(dst) + limit
	}
	out, err := appendPlain(dst, v, most)
	if err == errNotPlain {
		e := encoders.Get().(*encoder)
		e.buf, e.most = dst, most
		err = e.any(v)
		out = e.buf
		e.release()
	}
	if err == nil && len(out) > most {
		err = errLimit
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

var (
	errLimit    = fmt.Errorf("%w: beyond the limit", ErrTooLarge)
	errNotPlain = errors.New("not plain")
)

// appendPlain encodes the types that need no state.
func appendPlain(dst []byte, v any, most int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, msgpcode.Nil), nil
	case string:
		return appendString(dst, v, most)
	case []byte:
		return appendBytes(dst, v, most)
	case bool:
		return appendBool(dst, v), nil
	case int:
		return appendInt(dst, int64(v)), nil
	case int64:
		return appendInt(dst, v), nil
	case uint64:
		return appendUint(dst, v), nil
	case float64:
		return appendFinite64(dst, v)
	case int32:
		return appendInt(dst, int64(v)), nil
	case uint32:
		return appendUint(dst, uint64(v)), nil
	case float32:
		return appendFinite32(dst, v)
	case uint:
		return appendUint(dst, uint64(v)), nil
	case int16:
		return appendInt(dst, int64(v)), nil
	case uint16:
		return appendUint(dst, uint64(v)), nil
	case int8:
		return appendInt(dst, int64(v)), nil
	case uint8:
		return appendUint(dst, uint64(v)), nil
	case *Text:
		return transcode(dst, v.JSON, 0, most, v)
	}
	return dst, errNotPlain
}

// Unmarshal decodes data, which Scan has accepted or Append has written, into
// dst, a non-nil pointer. Nothing in dst points into data afterwards, and an
// UnmarshalJSON or UnmarshalText method may keep what it is given.
//
// Errors are those of encoding/json: where a value does not fit, Unmarshal goes
// on and returns a *json.UnmarshalTypeError for the first at the end; its
// Offset, though, counts in data. Bytes that Scan would refuse give ErrCorrupt,
// possibly after part of dst is filled, never a panic, and never an allocation
// out of proportion to data; only text that is not UTF-8 may pass unnoticed.
func Unmarshal(data []byte, dst any) error {
	d := decoders.Get().(*decoder)
	d.data = data
	d.budget = prealloc * len(data)
	err := d.top(dst)
	if err == nil {
		err = d.saved
		if err == nil && d.off != len(data) {
			err = corrupt("bytes behind the value", d.off)
		}
	}
	d.release()
	return err
}

// AppendJSON appends data, which Scan has accepted or Append has written, as
// compact JSON text: object keys sorted bytewise, HTML not escaped, and a float
// without a fraction written 1.0 so that it can be told from an integer (but -0,
// which AppendFromJSON takes for a float anyway). On an
// error it returns dst as it was; bytes that Scan would refuse give ErrCorrupt.
func AppendJSON(dst, data []byte) ([]byte, error) {
	r := renderer{out: dst, data: data, forReading: true}
	off, err := r.value(0, 0)
	if err == nil && off != len(data) {
		err = corrupt("bytes behind the value", off)
	}
	if err != nil {
		return dst, err
	}
	return r.out, nil
}

// AppendFromJSON appends the msgpack of one JSON text to dst. The syntax is as
// strict as that of encoding/json. An integer literal is an integer, one with a
// fraction or an exponent a float, and every literal keeps its exact value.
// limit is as for Append. Malformed text and nesting beyond MaxDepth give
// ErrUnsupported; the first wraps a *json.SyntaxError. On any error
// AppendFromJSON returns dst as it was.
func AppendFromJSON(dst, text []byte, limit int) ([]byte, error) {
	most := math.MaxInt
	if limit > 0 && limit < math.MaxInt-len(dst) {
		most = len(dst) + limit
	}
	return transcode(dst, text, 0, most, nil)
}

// typeCache maps a type to what was compiled for it. Types are never
// forgotten: a program has finitely many.
type typeCache[P any] struct {
	ready sync.Map // reflect.Type -> *P
	mu    sync.Mutex
	build func(*typeBuild[P], reflect.Type, *P)
}

// typeBuild is one run of a typeCache's build function; plans of recursive
// types point to each other before they are complete.
type typeBuild[P any] struct {
	cache *typeCache[P]
	plans map[reflect.Type]*P
}

// get returns the plan of t, compiling it if it is not known yet.
func (c *typeCache[P]) get(t reflect.Type) *P {
	if p, ok := c.ready.Load(t); ok {
		return p.(*P)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &typeBuild[P]{cache: c, plans: map[reflect.Type]*P{}}
	p := b.get(t)
	for t, p := range b.plans {
		c.ready.Store(t, p)
	}
	return p
}

// get returns the plan of t, which may not be complete before the build is.
func (b *typeBuild[P]) get(t reflect.Type) *P {
	if p, ok := b.cache.ready.Load(t); ok {
		return p.(*P)
	}
	if p, ok := b.plans[t]; ok {
		return p
	}
	p := new(P)
	b.plans[t] = p
	b.cache.build(b, t, p)
	return p
}
