package jsonpack

import (
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

var (
	marshalerType       = reflect.TypeFor[json.Marshaler]()
	unmarshalerType     = reflect.TypeFor[json.Unmarshaler]()
	textMarshalerType   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	numberType          = reflect.TypeFor[json.Number]()
	timeType            = reflect.TypeFor[time.Time]()
)

// encFunc appends v, which has the type that the function was compiled for.
type encFunc func(e *encoder, v reflect.Value) error

type encPlan struct {
	enc encFunc
}

type encBuild = typeBuild[encPlan]

var encPlans typeCache[encPlan]

func init() {
	encPlans.build = func(b *encBuild, t reflect.Type, p *encPlan) { p.enc = compileEnc(b, t) }
}

// compileEnc chooses among methods and kinds in the order in which encoding/json does.
func compileEnc(b *encBuild, t reflect.Type) encFunc {
	switch t {
	case timeType:
		return encodeTime
	case reflect.PointerTo(timeType):
		return pointerTo(b.get(timeType))
	}
	kind := compileKind(b, t)
	byText := kind
	if t.Implements(textMarshalerType) {
		byText = encodeTextMarshaler
	} else if t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(textMarshalerType) {
		byText = addressable(encodeTextMarshaler, kind)
	}
	if t.Implements(marshalerType) {
		return encodeMarshaler
	}
	if t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(marshalerType) {
		return addressable(encodeMarshaler, byText)
	}
	return byText
}

// addressable encodes the address of a value that has one with enc, another
// value with other.
func addressable(enc, other encFunc) encFunc {
	return func(e *encoder, v reflect.Value) error {
		if v.CanAddr() {
			return enc(e, v.Addr())
		}
		return other(e, v)
	}
}

func compileKind(b *encBuild, t reflect.Type) encFunc {
	switch t.Kind() {
	case reflect.Bool:
		return func(e *encoder, v reflect.Value) error {
			e.buf = appendBool(e.buf, v.Bool())
			return nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(e *encoder, v reflect.Value) error {
			e.buf = appendInt(e.buf, v.Int())
			return nil
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return func(e *encoder, v reflect.Value) error {
			e.buf = appendUint(e.buf, v.Uint())
			return nil
		}
	case reflect.Float32:
		return func(e *encoder, v reflect.Value) (err error) {
			e.buf, err = appendFinite32(e.buf, float32(v.Float()))
			return err
		}
	case reflect.Float64:
		return func(e *encoder, v reflect.Value) (err error) {
			e.buf, err = appendFinite64(e.buf, v.Float())
			return err
		}
	case reflect.String:
		if t == numberType {
			return func(e *encoder, v reflect.Value) error { return e.number(v.String()) }
		}
		return func(e *encoder, v reflect.Value) error { return e.string(v.String()) }
	case reflect.Interface:
		return encodeInterface
	case reflect.Pointer:
		return pointerTo(b.get(t.Elem()))
	case reflect.Struct:
		return compileStruct(b, t)
	case reflect.Map:
		return compileMap(b, t)
	case reflect.Slice:
		p := reflect.PointerTo(t.Elem())
		if t.Elem().Kind() == reflect.Uint8 && !p.Implements(marshalerType) && !p.Implements(textMarshalerType) {
			return func(e *encoder, v reflect.Value) (err error) {
				e.buf, err = appendBytes(e.buf, v.Bytes(), e.most)
				return err
			}
		}
		elems := encodeElems(b.get(t.Elem()))
		return func(e *encoder, v reflect.Value) error {
			if v.IsNil() {
				e.buf = append(e.buf, msgpcode.Nil)
				return nil
			}
			return elems(e, v)
		}
	case reflect.Array:
		return encodeElems(b.get(t.Elem()))
	}
	return func(e *encoder, v reflect.Value) error { return errType(t) }
}

func errType(t reflect.Type) error {
	return fmt.Errorf("%w: %w", ErrUnsupported, &json.UnsupportedTypeError{Type: t})
}

func encodeInterface(e *encoder, v reflect.Value) error {
	if v.IsNil() {
		e.buf = append(e.buf, msgpcode.Nil)
		return nil
	}
	if v.CanInterface() {
		return e.any(v.Interface())
	}
	v = v.Elem()
	return encPlans.get(v.Type()).enc(e, v)
}

func pointerTo(elem *encPlan) encFunc {
	return func(e *encoder, v reflect.Value) error {
		if v.IsNil() {
			e.buf = append(e.buf, msgpcode.Nil)
			return nil
		}
		if e.hops >= maxHops {
			return errDepth
		}
		e.hops++
		err := elem.enc(e, v.Elem())
		e.hops--
		return err
	}
}

func encodeElems(elem *encPlan) encFunc {
	return func(e *encoder, v reflect.Value) error {
		n := v.Len()
		if err := e.enterArray(n); err != nil {
			return err
		}
		for i := range n {
			if err := elem.enc(e, v.Index(i)); err != nil {
				return err
			}
			if err := e.check(); err != nil {
				return err
			}
		}
		e.depth--
		return nil
	}
}

// number appends a json.Number.
func (e *encoder) number(lit string) error {
	if lit == "" {
		lit = "0" // the zero json.Number
	}
	if !validNumber(lit) {
		return fmt.Errorf("%w: json: invalid number literal %q", ErrUnsupported, lit)
	}
	if len(lit) > maxNumberBytes {
		return errNumber
	}
	e.buf = appendLiteral(e.buf, lit)
	return nil
}

func encodeTime(e *encoder, v reflect.Value) error {
	if !v.CanInterface() {
		return errHidden(v)
	}
	t, _ := reflect.TypeAssert[time.Time](v)
	text, err := t.AppendText(e.text[:0])
	if err != nil {
		return encodeMarshaler(e, v) // whose error is the one to report
	}
	e.text = text
	e.buf, err = appendStringBytes(e.buf, text, e.most)
	return err
}

// errHidden is for methods of a struct that is embedded under a name of its own
// and whose type is not exported. Reflection cannot call them; encoding/json panics.
func errHidden(v reflect.Value) error {
	return fmt.Errorf("%w: methods of %s are out of reach in an embedded field", ErrUnsupported, v.Type())
}

func encodeMarshaler(e *encoder, v reflect.Value) error {
	if k := v.Kind(); (k == reflect.Pointer || k == reflect.Interface) && v.IsNil() {
		e.buf = append(e.buf, msgpcode.Nil)
		return nil
	}
	if !v.CanInterface() {
		return errHidden(v)
	}
	text, err := v.Interface().(json.Marshaler).MarshalJSON()
	if err == nil {
		e.buf, err = transcode(e.buf, text, e.depth, e.most, nil)
		if err == nil || errors.Is(err, ErrTooLarge) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnsupported, &json.MarshalerError{Type: v.Type(), Err: err})
}

func encodeTextMarshaler(e *encoder, v reflect.Value) error {
	if k := v.Kind(); (k == reflect.Pointer || k == reflect.Interface) && v.IsNil() {
		e.buf = append(e.buf, msgpcode.Nil)
		return nil
	}
	if !v.CanInterface() {
		return errHidden(v)
	}
	text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
	if err != nil {
		return fmt.Errorf("%w: json: error calling MarshalText for type %s: %w", ErrUnsupported, v.Type(), err)
	}
	e.buf, err = appendStringBytes(e.buf, text, e.most)
	return err
}

// sortedPair is an entry of a map that is written by reflection.
type sortedPair struct {
	key   string
	value reflect.Value
}

func compileMap(b *encBuild, t reflect.Type) encFunc {
	switch t.Key().Kind() {
	case reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
	default:
		if !t.Key().Implements(textMarshalerType) {
			return func(*encoder, reflect.Value) error { return errType(t) }
		}
	}
	elem := b.get(t.Elem())
	switch t {
	case mapAnyType:
		return func(e *encoder, v reflect.Value) error { return e.mapAny(v.Interface().(map[string]any)) }
	case reflect.TypeFor[map[string]string]():
		return func(e *encoder, v reflect.Value) error {
			return encodeMap(e, v.Interface().(map[string]string), (*encoder).string)
		}
	}
	return func(e *encoder, v reflect.Value) error {
		if v.IsNil() {
			e.buf = append(e.buf, msgpcode.Nil)
			return nil
		}
		if err := e.enterMap(v.Len()); err != nil {
			return err
		}
		base := len(e.sorted)
		for iter := v.MapRange(); iter.Next(); {
			key, err := keyText(iter.Key())
			if err != nil {
				return fmt.Errorf("%w: json: encoding error for type %q: %w", ErrUnsupported, t.String(), err)
			}
			e.sorted = append(e.sorted, sortedPair{key, iter.Value()})
		}
		pairs := e.sorted[base:]
		slices.SortFunc(pairs, func(a, b sortedPair) int { return cmp.Compare(a.key, b.key) })
		for _, p := range pairs {
			if err := e.string(p.key); err != nil {
				return err
			}
			if err := elem.enc(e, p.value); err != nil {
				return err
			}
			if err := e.check(); err != nil {
				return err
			}
		}
		clear(e.sorted[base:])
		e.sorted = e.sorted[:base]
		e.depth--
		return nil
	}
}

// keyText returns the object key that stands for the map key k.
func keyText(k reflect.Value) (string, error) {
	switch k.Kind() {
	case reflect.String:
		return k.String(), nil
	case reflect.Interface:
		if k.IsNil() {
			return "", errors.New("nil map key")
		}
	}
	if k.CanInterface() && k.Type().Implements(textMarshalerType) {
		if k.Kind() == reflect.Pointer && k.IsNil() {
			return "", nil
		}
		text, err := k.Interface().(encoding.TextMarshaler).MarshalText()
		return string(text), err
	}
	if k.CanInt() {
		return strconv.FormatInt(k.Int(), 10), nil
	}
	return strconv.FormatUint(k.Uint(), 10), nil
}
