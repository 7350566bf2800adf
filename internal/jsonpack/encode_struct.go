package jsonpack

import (
	"fmt"
	"math"
	"reflect"
	"strconv"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

func compileStruct(b *encBuild, t reflect.Type) encFunc {
	type structField struct {
		*field
		key []byte // the key's msgpack
		enc *encPlan
	}
	var fields []structField
	fixed := true // every field is written, always
	for _, f := range fieldsOf(t).list {
		sf := structField{field: f, enc: b.get(f.typ)}
		sf.key, _ = appendString(nil, f.name, math.MaxInt)
		if f.quoted {
			sf.enc = &encPlan{compileQuoted(b, f.typ)}
		}
		if f.omitEmpty || f.omitZero || f.viaPointer {
			fixed = false
		}
		fields = append(fields, sf)
	}
	return func(e *encoder, v reflect.Value) error {
		// The count is known only at the end, so room is left for the longest
		// head that it can need: the head may be longer than its count asks for.
		pos := len(e.buf)
		if err := e.enterMap(len(fields)); err != nil {
			return err
		}
		n := 0
		for i := range fields {
			f := &fields[i]
			fv, ok := f.find(v)
			if !ok || f.omitEmpty && isEmpty(fv) {
				continue
			}
			if f.omitZero {
				zero, err := f.isZero(fv)
				if err != nil {
					return err
				}
				if zero {
					continue
				}
			}
			n++
			e.buf = append(e.buf, f.key...)
			if err := f.enc.enc(e, fv); err != nil {
				return err
			}
			if err := e.check(); err != nil {
				return err
			}
		}
		if !fixed {
			setMapCount(e.buf[pos:], n)
		}
		e.depth--
		return nil
	}
}

// setMapCount changes the count in a map's head to a smaller one.
func setMapCount(head []byte, n int) {
	switch {
	case head[0] == msgpcode.Map32:
		head[1], head[2], head[3], head[4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	case head[0] == msgpcode.Map16:
		head[1], head[2] = byte(n>>8), byte(n)
	default:
		head[0] = msgpcode.FixedMapLow | byte(n)
	}
}

// isEmpty says what omitempty leaves out.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct, reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return false
	}
	return v.IsZero()
}

// compileQuoted is compileEnc for a field with the option string: its JSON text
// becomes the content of a string, unless methods write it.
func compileQuoted(b *encBuild, t reflect.Type) encFunc {
	if t.Implements(marshalerType) || t.Implements(textMarshalerType) {
		return b.get(t).enc
	}
	plain := encodeQuoted
	switch t.Kind() {
	case reflect.Pointer:
		return pointerTo(&encPlan{compileQuoted(b, t.Elem())})
	}
	if p := reflect.PointerTo(t); p.Implements(marshalerType) {
		return addressable(encodeMarshaler, plain)
	} else if p.Implements(textMarshalerType) {
		return addressable(encodeTextMarshaler, plain)
	}
	return plain
}

func encodeQuoted(e *encoder, v reflect.Value) (err error) {
	text := e.text[:0]
	switch k := v.Kind(); {
	case k == reflect.Bool:
		text = strconv.AppendBool(text, v.Bool())
	case v.CanInt():
		text = strconv.AppendInt(text, v.Int(), 10)
	case v.CanUint():
		text = strconv.AppendUint(text, v.Uint(), 10)
	case v.CanFloat():
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return errNotFinite(v)
		}
		text = appendJSONFloat(text, f, v.Type().Bits())
	case v.Type() == numberType:
		if v.String() == "" {
			text = append(text, '0')
		} else if !validNumber(v.String()) {
			return fmt.Errorf("%w: json: invalid number literal %q", ErrUnsupported, v.String())
		}
		text = append(text, v.String()...)
	default:
		text = appendQuoted(text, v.String(), true)
	}
	e.text = text
	e.buf, err = appendStringBytes(e.buf, text, e.most)
	return err
}
