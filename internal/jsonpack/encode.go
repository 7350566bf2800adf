package jsonpack

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

var (
	errDepth  = fmt.Errorf("%w: nested deeper than %d levels, or a cycle", ErrUnsupported, MaxDepth)
	errLength = fmt.Errorf("%w: more than %d bytes or members", ErrTooLarge, uint32(math.MaxUint32))
	errNumber = fmt.Errorf("%w: number literal of more than %d bytes", ErrTooLarge, maxNumberBytes)
)

// maxPooled is the largest scratch buffer, in bytes, that outlives a call.
const maxPooled = 64 << 10

// encoder is the state of one Append.
type encoder struct {
	buf   []byte
	most  int // the largest allowed len(buf)
	depth int // containers around the current value
	hops  int // pointers around the current value

	pairs  []pair       // of the string maps being written, outer ones first
	sorted []sortedPair // the same for maps written by reflection
	text   []byte       // scratch
}

var encoders = sync.Pool{New: func() any { return new(encoder) }}

// release gives e back to the pool without what belongs to the caller. An
// encoder that an error or a panic left in the middle is as good as any other.
func (e *encoder) release() {
	e.buf = nil
	e.depth, e.hops = 0, 0
	// Entries behind the length keep maps' keys and values alive until cleared.
	if cap(e.pairs) > 1024 {
		e.pairs = nil
	}
	if cap(e.sorted) > 1024 {
		e.sorted = nil
	}
	if cap(e.text) > maxPooled {
		e.text = nil
	}
	clear(e.pairs)
	clear(e.sorted)
	e.pairs, e.sorted = e.pairs[:0], e.sorted[:0]
	encoders.Put(e)
}

// enter goes one container deeper.
func (e *encoder) enter() error {
	if e.depth >= MaxDepth {
		return errDepth
	}
	e.depth++
	return nil
}

// check returns errLimit if the value has outgrown its limit. It is called
// once for every member of a container, so that no more than that is built in vain.
func (e *encoder) check() error {
	if len(e.buf) > e.most {
		return errLimit
	}
	return nil
}

// any appends v, by its dynamic type.
func (e *encoder) any(v any) error {
	out, err := appendPlain(e.buf, v, e.most)
	if err == nil {
		e.buf = out
		return nil
	}
	if err != errNotPlain {
		return err
	}
	switch v := v.(type) {
	case map[string]any:
		return e.mapAny(v)
	case map[string]string:
		return encodeMap(e, v, (*encoder).string)
	case []any:
		return encodeSlice(e, v, (*encoder).any)
	case []string:
		return encodeSlice(e, v, (*encoder).string)
	}
	rv := reflect.ValueOf(v)
	return encPlans.get(rv.Type()).enc(e, rv)
}

func (e *encoder) string(s string) (err error) {
	e.buf, err = appendString(e.buf, s, e.most)
	return err
}

func encodeSlice[T any](e *encoder, s []T, elem func(*encoder, T) error) error {
	if s == nil {
		e.buf = append(e.buf, msgpcode.Nil)
		return nil
	}
	if err := e.enterArray(len(s)); err != nil {
		return err
	}
	for _, v := range s {
		if err := elem(e, v); err != nil {
			return err
		}
		if err := e.check(); err != nil {
			return err
		}
	}
	e.depth--
	return nil
}

func (e *encoder) enterArray(n int) error {
	if uint64(n) > math.MaxUint32 {
		return errLength
	}
	e.buf = appendArrayHead(e.buf, n)
	return e.enter()
}

func (e *encoder) enterMap(n int) error {
	if uint64(n) > math.MaxUint32 {
		return errLength
	}
	e.buf = appendMapHead(e.buf, n)
	return e.enter()
}

// pair is an entry of a map with string keys. The value is unused where it can
// be looked up more cheaply than it can be put into an any.
type pair struct {
	key   string
	value any
}

// mapAny appends m with its keys sorted bytewise, as encoding/json does.
func (e *encoder) mapAny(m map[string]any) error {
	if m == nil {
		e.buf = append(e.buf, msgpcode.Nil)
		return nil
	}
	if err := e.enterMap(len(m)); err != nil {
		return err
	}
	base := len(e.pairs)
	for k, v := range m {
		e.pairs = append(e.pairs, pair{k, v})
	}
	for _, p := range sortPairs(e.pairs[base:]) {
		if err := e.string(p.key); err != nil {
			return err
		}
		if err := e.any(p.value); err != nil {
			return err
		}
		if err := e.check(); err != nil {
			return err
		}
	}
	e.dropPairs(base)
	return nil
}

// encodeMap is mapAny for other maps.
func encodeMap[V any](e *encoder, m map[string]V, elem func(*encoder, V) error) error {
	if m == nil {
		e.buf = append(e.buf, msgpcode.Nil)
		return nil
	}
	if err := e.enterMap(len(m)); err != nil {
		return err
	}
	base := len(e.pairs)
	for k := range m {
		e.pairs = append(e.pairs, pair{key: k})
	}
	for _, p := range sortPairs(e.pairs[base:]) {
		if err := e.string(p.key); err != nil {
			return err
		}
		if err := elem(e, m[p.key]); err != nil {
			return err
		}
		if err := e.check(); err != nil {
			return err
		}
	}
	e.dropPairs(base)
	return nil
}

func sortPairs(pairs []pair) []pair {
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	return pairs
}

// dropPairs ends a map whose pairs start at base.
func (e *encoder) dropPairs(base int) {
	clear(e.pairs[base:])
	e.pairs = e.pairs[:base]
	e.depth--
}

// appendString appends s with what is not UTF-8 replaced by U+FFFD.
func appendString(dst []byte, s string, most int) ([]byte, error) {
	return appendText(dst, s, utf8.ValidString(s), most)
}

// appendStringBytes is appendString for bytes.
func appendStringBytes(dst, s []byte, most int) ([]byte, error) {
	return appendText(dst, s, utf8.Valid(s), most)
}

func appendText[T string | []byte](dst []byte, s T, valid bool, most int) ([]byte, error) {
	n := len(s)
	if !valid {
		n = coercedLen(s)
	}
	if uint64(n) > math.MaxUint32 {
		return dst, errLength
	}
	if n > most-len(dst) {
		return dst, errLimit
	}
	dst = appendStrHead(dst, n)
	if !valid {
		return appendCoerced(dst, s), nil
	}
	return append(dst, s...), nil
}

func appendBytes(dst []byte, b []byte, most int) ([]byte, error) {
	if b == nil {
		return append(dst, msgpcode.Nil), nil
	}
	if uint64(len(b)) > math.MaxUint32 {
		return dst, errLength
	}
	if len(b) > most-len(dst) {
		return dst, errLimit
	}
	return append(appendBinHead(dst, len(b)), b...), nil
}

func appendFinite64(dst []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, errNotFinite(reflect.ValueOf(f))
	}
	return appendFloat64(dst, f), nil
}

func appendFinite32(dst []byte, f float32) ([]byte, error) {
	if f != f || math.IsInf(float64(f), 0) {
		return dst, errNotFinite(reflect.ValueOf(f))
	}
	return appendFloat32(dst, f), nil
}

func errNotFinite(v reflect.Value) error {
	str := strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits())
	return fmt.Errorf("%w: %w", ErrUnsupported, notFinite{&json.UnsupportedValueError{Value: v, Str: str}})
}

// notFinite is the error of encoding/json, in words that do not repeat ErrUnsupported.
type notFinite struct{ *json.UnsupportedValueError }

func (e notFinite) Error() string { return e.Str }
func (e notFinite) Unwrap() error { return e.UnsupportedValueError }
