package jsonpack

import (
	"encoding/base64"
	"reflect"
	"slices"
)

// The destinations in this file are so common that they are filled without
// reflection, and never looked at for methods: they have none.

var (
	anyType     = reflect.TypeFor[any]()
	stringType  = reflect.TypeFor[string]()
	bytesType   = reflect.TypeFor[[]byte]()
	mapAnyType  = reflect.TypeFor[map[string]any]()
	anysType    = reflect.TypeFor[[]any]()
	stringsType = reflect.TypeFor[[]string]()
)

// intoAny decodes into an any: what it points to if it holds a pointer, else itself.
func (d *decoder) intoAny(p *any) error {
	if *p != nil && reflect.TypeOf(*p).Kind() == reflect.Pointer {
		return d.odd(reflect.ValueOf(p).Elem())
	}
	v, ok, err := d.newAny()
	if ok {
		*p = v
	}
	return err
}

// newAny is any for a destination that stays as it is if ok is false: there was
// an error, or a number beyond float64.
func (d *decoder) newAny() (v any, ok bool, err error) {
	if h, next := readHead(d.data, d.off); h.kind == kindNum {
		d.off = next
		lit, err := d.number(h)
		if err != nil {
			return nil, false, err
		}
		v, ok = d.numberAny(h, lit)
		return v, ok, nil
	}
	v, err = d.any()
	return v, err == nil, err
}

func (d *decoder) intoString(p *string) error {
	h := d.head()
	switch h.kind {
	case kindStr:
		*p = string(d.content(h))
		return nil
	case kindBin:
		*p = base64.StdEncoding.EncodeToString(d.content(h))
		return nil
	case kindNil:
		return nil
	}
	return d.unfit(h, stringType)
}

func (d *decoder) intoBytes(p *[]byte) error {
	h := d.head()
	switch h.kind {
	case kindBin:
		*p = append(make([]byte, 0, h.n), d.content(h)...)
		return nil
	case kindStr:
		d.base64(h, func(b []byte) { *p = b })
		return nil
	case kindNil:
		*p = nil
		return nil
	case kindArray:
		return decPlans.get(bytesType).array(d, reflect.ValueOf(p).Elem(), h.n)
	}
	return d.unfit(h, bytesType)
}

// base64 decodes a string for a byte slice.
func (d *decoder) base64(h head, set func([]byte)) {
	text := d.content(h)
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(b, text)
	if err != nil {
		d.save(err)
		return
	}
	set(b[:n])
}

func (d *decoder) intoMapAny(p *map[string]any) error {
	h := d.head()
	switch h.kind {
	case kindMap:
		if *p == nil {
			*p = make(map[string]any, d.ahead(h.n, mapEntry))
		}
		return d.fillMapAny(*p, h.n)
	case kindNil:
		*p = nil
		return nil
	}
	return d.unfit(h, mapAnyType)
}

// intoSlice decodes into a slice, in its own memory as far as that goes: what
// lies there is merged with, also beyond the slice's length.
func intoSlice[T any](d *decoder, p *[]T, elem func(*decoder, *T) error) error {
	h := d.head()
	switch h.kind {
	case kindArray:
	case kindNil:
		*p = nil
		return nil
	default:
		return d.unfit(h, reflect.TypeFor[[]T]())
	}
	if h.n == 0 {
		*p = []T{}
		return nil
	}
	if err := d.enter(); err != nil {
		return err
	}
	s := (*p)[:cap(*p)]
	for i := range h.n {
		if i == len(s) {
			s = slices.Grow(s, max(1, d.ahead(h.n-i, int(reflect.TypeFor[T]().Size()))))
			s = s[:cap(s)]
		}
		if err := elem(d, &s[i]); err != nil {
			*p = s[:max(i+1, len(*p))]
			return err
		}
	}
	*p = s[:h.n]
	d.depth--
	return nil
}
