package jsonpack

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// target is where a destination leads: to one of the two methods, or to a value
// that is no pointer (or, for null, a pointer to be set to nil).
type target struct {
	json json.Unmarshaler
	text encoding.TextUnmarshaler
	v    reflect.Value
}

// follow goes through the pointers and interfaces of v, and allocates what nil
// pointers should point to, as encoding/json does: null stops at the first
// pointer that can be set; a method is looked for at every pointer, and at
// v itself if its type has a name.
func (d *decoder) follow(v reflect.Value, null bool) (target, error) {
	start, fromAddr := v, false
	if v.Kind() != reflect.Pointer && v.Type().Name() != "" && v.CanAddr() {
		v, fromAddr = v.Addr(), true
	}
	for range maxHops {
		if v.Kind() == reflect.Interface && !v.IsNil() {
			e := v.Elem()
			if e.Kind() == reflect.Pointer && !e.IsNil() && (!null || e.Elem().Kind() == reflect.Pointer) {
				v, fromAddr = e, false
				continue
			}
		}
		if v.Kind() != reflect.Pointer || null && v.CanSet() {
			return target{v: v}, nil
		}
		if e := v.Elem(); e.Kind() == reflect.Interface && e.Elem().Equal(v) {
			return target{v: e}, nil // an interface that holds its own address
		}
		if v.IsNil() {
			if !v.CanSet() {
				return target{}, errEmbedded(v)
			}
			v.Set(reflect.New(v.Type().Elem()))
		}
		if v.Type().NumMethod() > 0 && v.CanInterface() {
			switch u := v.Interface().(type) {
			case json.Unmarshaler:
				return target{json: u}, nil
			case encoding.TextUnmarshaler:
				if !null {
					return target{text: u}, nil
				}
			}
		}
		if fromAddr {
			// Its own value again, and not one derived from its address, so
			// that what reflection knows about how it was reached is kept.
			v, fromAddr = start, false
		} else {
			v = v.Elem()
		}
	}
	return target{}, fmt.Errorf("%w: the destination is a cycle of pointers", ErrUnsupported)
}

// odd decodes the next value into v, whatever that is.
func (d *decoder) odd(v reflect.Value) error {
	t, err := d.follow(v, d.isNull())
	switch {
	case err != nil:
		d.save(err)
		return d.skip()
	case t.json != nil:
		return d.unmarshalJSON(t.json)
	case t.text != nil:
		return d.unmarshalText(t.text, v.Type())
	case t.v.Kind() == reflect.Interface:
		return decodeInterface(d, t.v)
	case t.v.Kind() == reflect.Pointer: // only null comes as far as this
		d.off++
		t.v.SetZero()
		return nil
	}
	return decPlans.get(t.v.Type()).body(d, t.v)
}

// unmarshalJSON gives the next value to u as the text that json.Marshal would
// have written.
func (d *decoder) unmarshalJSON(u json.Unmarshaler) error {
	if _, ok := u.(*time.Time); ok { // which is frequent, and keeps nothing
		r := renderer{out: d.scratch[:0], data: d.data}
		end, err := r.value(d.off, d.depth)
		if err != nil {
			return err
		}
		d.off, d.scratch = end, r.out
		return d.located(u.UnmarshalJSON(r.out))
	}
	start := len(d.text)
	r := renderer{out: d.text, data: d.data}
	end, err := r.value(d.off, d.depth)
	if err != nil {
		return err
	}
	d.off, d.text = end, r.out
	return d.located(u.UnmarshalJSON(d.since(start)))
}

// unmarshalText gives the next value to u; t is the type of the destination.
func (d *decoder) unmarshalText(u encoding.TextUnmarshaler, t reflect.Type) error {
	h := d.head()
	if h.kind != kindStr && h.kind != kindBin {
		return d.unfit(h, t)
	}
	start := len(d.text)
	if h.kind == kindBin {
		d.text = base64.StdEncoding.AppendEncode(d.text, d.content(h))
	} else {
		d.text = append(d.text, d.content(h)...)
	}
	return d.located(u.UnmarshalText(d.since(start)))
}

// destring decodes a field with the option string: the string's content is the
// JSON text of the value. The usual contents are read directly; encoding/json
// itself reads the others, as a field of a struct of our own. That its second
// field has been read tells an error after which decoding goes on.
type destring struct {
	wrapper reflect.Type
	direct  reflect.Kind // of the field's type if that has no methods, else Invalid
}

func newDestring(t reflect.Type) *destring {
	s := &destring{wrapper: reflect.StructOf([]reflect.StructField{
		{Name: "F", Type: t, Tag: `json:"F,string"`},
		{Name: "Next", Type: reflect.TypeFor[bool]()},
	})}
	if t.Kind() != reflect.Pointer && t != numberType && reflect.PointerTo(t).NumMethod() == 0 {
		s.direct = t.Kind()
	}
	return s
}

func (s *destring) decode(d *decoder, p *decPlan, v reflect.Value) error {
	if d.isNull() {
		return d.value(p, v)
	}
	start := d.off
	h := d.head()
	if h.kind == kindStr && s.set(v, d.data[d.off:d.off+h.n]) {
		d.off += h.n
		return nil
	}
	r := renderer{out: append(d.scratch[:0], `{"F":`...), data: d.data}
	end, err := r.value(start, d.depth)
	if err != nil {
		return err
	}
	d.off = end
	d.scratch = append(r.out, `,"Next":true}`...)
	box := reflect.New(s.wrapper).Elem()
	box.Field(0).Set(v)
	err = json.Unmarshal(d.scratch, box.Addr().Interface())
	v.Set(box.Field(0))
	if err == nil {
		return nil
	}
	if mismatch, ok := err.(*json.UnmarshalTypeError); ok {
		_, mismatch.Field, _ = strings.Cut(mismatch.Field, ".") // without our F
	}
	if box.Field(1).Bool() {
		d.save(err)
		return nil
	}
	return d.located(err)
}

// set reads the content of a string where that is plain, and reports whether it was.
func (s *destring) set(v reflect.Value, text []byte) bool {
	switch k := s.direct; {
	case len(text) == 0:
		return false
	case k == reflect.Bool:
		if string(text) == "true" || string(text) == "false" {
			v.SetBool(text[0] == 't')
			return true
		}
	case k >= reflect.Int && k <= reflect.Int64 && (text[0] == '-' || text[0] >= '0' && text[0] <= '9'):
		n, err := strconv.ParseInt(string(text), 10, 64)
		if err == nil && !v.OverflowInt(n) {
			v.SetInt(n)
			return true
		}
	case k >= reflect.Uint && k <= reflect.Uintptr && text[0] >= '0' && text[0] <= '9':
		n, err := strconv.ParseUint(string(text), 10, 64)
		if err == nil && !v.OverflowUint(n) {
			v.SetUint(n)
			return true
		}
	}
	return false
}
