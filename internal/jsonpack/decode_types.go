package jsonpack

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// decPlan is how values of one type are decoded.
type decPlan struct {
	typ reflect.Type

	// odd is set where body is not the whole story: pointers and interfaces,
	// which may have to be followed, and types with methods.
	odd bool

	// body decodes the next value into v, which is addressable and has the
	// plan's type; methods have been dealt with.
	body func(d *decoder, v reflect.Value) error

	// array decodes n elements into v; for arrays and slices only.
	array func(d *decoder, v reflect.Value, n int) error

	elem *decPlan // of pointers
}

type decBuild = typeBuild[decPlan]

var decPlans typeCache[decPlan]

func init() { decPlans.build = compileDec }

// value decodes the next value into v, whose plan is p.
func (d *decoder) value(p *decPlan, v reflect.Value) error {
	if p.odd {
		return d.odd(v)
	}
	return p.body(d, v)
}

func compileDec(b *decBuild, t reflect.Type, p *decPlan) {
	p.typ = t
	switch {
	case t.Kind() == reflect.Interface:
		p.odd = t != anyType
	case t.Kind() == reflect.Pointer:
		e := t.Elem().Kind()
		p.odd = t.Name() != "" || t.NumMethod() > 0 || e == reflect.Pointer || e == reflect.Interface
	default:
		ptr := reflect.PointerTo(t)
		p.odd = t.Name() != "" && (ptr.Implements(unmarshalerType) || ptr.Implements(textUnmarshalerType))
	}
	switch t.Kind() {
	case reflect.Bool:
		p.body = decodeBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		p.body = decodeInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		p.body = decodeUint
	case reflect.Float32:
		p.body = decodeFloat32
	case reflect.Float64:
		p.body = decodeFloat64
	case reflect.String:
		p.body = decodeString
		if t == numberType {
			p.body = decodeNumber
		}
	case reflect.Interface:
		p.body = decodeInterface
		if t == anyType {
			p.body = func(d *decoder, v reflect.Value) error {
				return d.intoAny(v.Addr().Interface().(*any))
			}
		}
	case reflect.Pointer:
		p.elem = b.get(t.Elem())
		p.body = p.decodePointer
	case reflect.Struct:
		p.body = compileStructDec(b, t)
	case reflect.Map:
		p.body = compileMapDec(b, t)
		if t == mapAnyType {
			p.body = func(d *decoder, v reflect.Value) error {
				return d.intoMapAny(v.Addr().Interface().(*map[string]any))
			}
		}
	case reflect.Slice:
		p.elem = b.get(t.Elem())
		p.array = p.decodeSlice
		p.body = p.decodeArrayOrBytes
		switch t {
		case bytesType:
			p.body = func(d *decoder, v reflect.Value) error {
				return d.intoBytes(v.Addr().Interface().(*[]byte))
			}
		case anysType:
			p.body = func(d *decoder, v reflect.Value) error {
				return intoSlice(d, v.Addr().Interface().(*[]any), (*decoder).intoAny)
			}
		case stringsType:
			p.body = func(d *decoder, v reflect.Value) error {
				return intoSlice(d, v.Addr().Interface().(*[]string), (*decoder).intoString)
			}
		}
	case reflect.Array:
		p.elem = b.get(t.Elem())
		p.array = p.decodeArray
		p.body = p.decodeArrayOrBytes
	default:
		p.body = func(d *decoder, v reflect.Value) error { return d.unfit(d.head(), t) }
	}
}

func decodeBool(d *decoder, v reflect.Value) error {
	h := d.head()
	if h.kind != kindBool {
		return d.unfit(h, v.Type())
	}
	v.SetBool(h.bits != 0)
	return nil
}

func decodeInt(d *decoder, v reflect.Value) error {
	h := d.head()
	n, ok := h.int64()
	if ok && !v.OverflowInt(n) {
		v.SetInt(n)
		return nil
	}
	if h.kind < kindInt || h.kind > kindFloat64 && h.kind != kindNum {
		return d.unfit(h, v.Type())
	}
	lit, err := d.number(h)
	if err != nil {
		return err
	}
	if !ok {
		n, err = strconv.ParseInt(string(d.literal(h, lit)), 10, 64)
	}
	if err != nil || v.OverflowInt(n) {
		d.misfit(h, lit, v.Type())
		return nil
	}
	v.SetInt(n)
	return nil
}

func decodeUint(d *decoder, v reflect.Value) error {
	h := d.head()
	n, ok := h.uint64()
	if ok && !v.OverflowUint(n) {
		v.SetUint(n)
		return nil
	}
	if h.kind < kindInt || h.kind > kindFloat64 && h.kind != kindNum {
		return d.unfit(h, v.Type())
	}
	lit, err := d.number(h)
	if err != nil {
		return err
	}
	if !ok {
		n, err = strconv.ParseUint(string(d.literal(h, lit)), 10, 64)
	}
	if err != nil || v.OverflowUint(n) {
		d.misfit(h, lit, v.Type())
		return nil
	}
	v.SetUint(n)
	return nil
}

func decodeFloat64(d *decoder, v reflect.Value) error {
	h := d.head()
	if h.kind == kindFloat64 {
		v.SetFloat(math.Float64frombits(h.bits))
		return nil
	}
	return decodeFloat(d, v, h, 64)
}

func decodeFloat32(d *decoder, v reflect.Value) error {
	h := d.head()
	if f, ok := h.float32(); ok {
		v.SetFloat(float64(f))
		return nil
	}
	return decodeFloat(d, v, h, 32)
}

func decodeFloat(d *decoder, v reflect.Value, h head, bits int) error {
	if h.kind < kindInt || h.kind > kindFloat64 && h.kind != kindNum {
		return d.unfit(h, v.Type())
	}
	lit, err := d.number(h)
	if err != nil {
		return err
	}
	f, ok := 0.0, false
	if bits == 64 {
		f, ok = h.float64()
	}
	if !ok {
		f, err = strconv.ParseFloat(string(d.literal(h, lit)), bits)
	}
	if err != nil {
		d.misfit(h, lit, v.Type())
		return nil
	}
	v.SetFloat(f)
	return nil
}

func decodeString(d *decoder, v reflect.Value) error {
	h := d.head()
	if h.kind != kindStr && h.kind != kindBin {
		return d.unfit(h, v.Type())
	}
	v.SetString(d.string(h))
	return nil
}

// decodeNumber decodes into a json.Number, which takes a number in a string, too.
func decodeNumber(d *decoder, v reflect.Value) error {
	h := d.head()
	switch h.kind {
	case kindStr, kindBin:
		s := d.string(h)
		if !validNumber(s) {
			return fmt.Errorf("json: invalid number literal, trying to unmarshal %q into Number", appendQuoted(nil, s, true))
		}
		v.SetString(s)
	case kindInt, kindUint, kindFloat32, kindFloat64, kindNum:
		lit, err := d.number(h)
		if err != nil {
			return err
		}
		v.SetString(string(d.literal(h, lit)))
	default:
		return d.unfit(h, v.Type())
	}
	return nil
}

// string returns the text of a string or a binary.
func (d *decoder) string(h head) string {
	if h.kind == kindBin {
		return base64.StdEncoding.EncodeToString(d.content(h))
	}
	return string(d.content(h))
}

// decodeInterface decodes into an interface that holds nothing to decode into.
func decodeInterface(d *decoder, v reflect.Value) error {
	if d.isNull() {
		d.off++
		if v.CanSet() {
			v.SetZero()
		}
		return nil
	}
	if v.NumMethod() > 0 {
		h, next := readHead(d.data, d.off)
		d.off = next
		if h.kind == kindNum && !isInteger(d.data[next:next+h.n]) {
			if _, ok := d.numberAny(h, d.data[next:next+h.n]); !ok {
				d.off += h.n
				return nil
			}
		}
		return d.unfit(h, v.Type())
	}
	x, ok, err := d.newAny()
	if ok {
		v.Set(reflect.ValueOf(x))
	}
	return err
}

// decodePointer decodes into a pointer to what is neither a pointer nor an interface.
func (p *decPlan) decodePointer(d *decoder, v reflect.Value) error {
	if d.isNull() {
		d.off++
		if v.CanSet() {
			v.SetZero()
		}
		return nil
	}
	if v.IsNil() {
		if !v.CanSet() {
			return d.unsettable(v)
		}
		v.Set(reflect.New(p.typ.Elem()))
	}
	return p.elem.body(d, v.Elem())
}

// unsettable skips the value of a nil pointer to a struct that is embedded
// under a name of its own and whose type is not exported; encoding/json panics.
func (d *decoder) unsettable(v reflect.Value) error {
	d.save(errEmbedded(v))
	return d.skip()
}

func errEmbedded(v reflect.Value) error {
	return fmt.Errorf("json: cannot set embedded pointer to unexported struct: %v", v.Type().Elem())
}

// decodeArrayOrBytes decodes into an array, or a slice other than []byte.
func (p *decPlan) decodeArrayOrBytes(d *decoder, v reflect.Value) error {
	h := d.head()
	isSlice := v.Kind() == reflect.Slice
	switch {
	case h.kind == kindArray:
		return p.array(d, v, h.n)
	case h.kind == kindNil && isSlice:
		v.SetZero()
		return nil
	case (h.kind == kindStr || h.kind == kindBin) && isSlice && p.elem.typ.Kind() == reflect.Uint8:
		if h.kind == kindBin {
			v.SetBytes(append(make([]byte, 0, h.n), d.content(h)...))
		} else {
			d.base64(h, v.SetBytes)
		}
		return nil
	}
	return d.unfit(h, p.typ)
}

// decodeSlice fills v from the start, in its own memory as far as that goes:
// what lies there is merged with, also beyond the slice's length.
func (p *decPlan) decodeSlice(d *decoder, v reflect.Value, n int) error {
	if n == 0 {
		v.Set(reflect.MakeSlice(p.typ, 0, 0))
		return nil
	}
	if err := d.enter(); err != nil {
		return err
	}
	for i := range n {
		if i >= v.Cap() {
			v.Grow(max(1, d.ahead(n-i, int(p.elem.typ.Size()))))
		}
		if i >= v.Len() {
			v.SetLen(i + 1)
		}
		if err := d.value(p.elem, v.Index(i)); err != nil {
			return err
		}
	}
	v.SetLen(n)
	d.depth--
	return nil
}

// decodeArray fills v, skips what is too much and zeroes what is left.
func (p *decPlan) decodeArray(d *decoder, v reflect.Value, n int) error {
	if err := d.enter(); err != nil {
		return err
	}
	for i := range n {
		var err error
		if i < v.Len() {
			err = d.value(p.elem, v.Index(i))
		} else {
			err = d.skip()
		}
		if err != nil {
			return err
		}
	}
	for i := n; i < v.Len(); i++ {
		v.Index(i).SetZero()
	}
	d.depth--
	return nil
}
