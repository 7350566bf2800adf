package jsonpack

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
)

// mapDec decodes into maps of one type.
type mapDec struct {
	typ     reflect.Type
	elem    *decPlan
	textKey bool // the key type has UnmarshalText
	jsonKey bool // and UnmarshalJSON, which comes first
}

func compileMapDec(b *decBuild, t reflect.Type) func(*decoder, reflect.Value) error {
	key := reflect.PointerTo(t.Key())
	m := &mapDec{
		typ:     t,
		elem:    b.get(t.Elem()),
		textKey: key.Implements(textUnmarshalerType),
		jsonKey: key.Implements(unmarshalerType),
	}
	if k := t.Key().Kind(); k != reflect.String && (k < reflect.Int || k > reflect.Uintptr) && !m.textKey {
		return func(d *decoder, v reflect.Value) error {
			if d.isNull() {
				d.off++
				v.SetZero()
				return nil
			}
			return d.unfit(d.head(), t)
		}
	}
	return m.decode
}

func (m *mapDec) decode(d *decoder, v reflect.Value) error {
	h := d.head()
	switch h.kind {
	case kindNil:
		v.SetZero()
		return nil
	case kindMap:
	default:
		return d.unfit(h, m.typ)
	}
	if err := d.enter(); err != nil {
		return err
	}
	if v.IsNil() {
		v.Set(reflect.MakeMapWithSize(m.typ, d.ahead(h.n, int(m.typ.Key().Size()+m.typ.Elem().Size())+8)))
	}
	var elem, key reflect.Value
	for range h.n {
		name, err := d.key()
		if err != nil {
			return err
		}
		// An entry that is there already is replaced, not merged with.
		if !elem.IsValid() {
			elem = reflect.New(m.typ.Elem()).Elem()
			key = reflect.New(m.typ.Key()).Elem()
		} else {
			elem.SetZero()
		}
		if err := d.value(m.elem, elem); err != nil {
			return err
		}
		ok, err := m.setKey(d, key, name)
		if err != nil {
			return err
		}
		if ok {
			v.SetMapIndex(key, elem)
		}
	}
	d.depth--
	return nil
}

// setKey makes key the map key that stands for the object key name. It returns
// false if there is none, which it has recorded, or the error of a method.
func (m *mapDec) setKey(d *decoder, key reflect.Value, name []byte) (ok bool, err error) {
	if m.textKey {
		key.SetZero()
		p := key.Addr().Interface()
		if m.jsonKey {
			start := len(d.text)
			d.text = appendQuoted(d.text, name, true)
			err = p.(json.Unmarshaler).UnmarshalJSON(d.since(start))
		} else {
			start := len(d.text)
			d.text = append(d.text, name...)
			err = p.(encoding.TextUnmarshaler).UnmarshalText(d.since(start))
		}
		return true, d.located(err)
	}
	switch k := key.Kind(); {
	case k == reflect.String:
		key.SetString(string(name))
	case key.CanInt():
		n, err := strconv.ParseInt(string(name), 10, 64)
		if err != nil || key.OverflowInt(n) {
			d.mismatch("number "+string(name), key.Type())
			return false, nil
		}
		key.SetInt(n)
	default:
		n, err := strconv.ParseUint(string(name), 10, 64)
		if err != nil || key.OverflowUint(n) {
			d.mismatch("number "+string(name), key.Type())
			return false, nil
		}
		key.SetUint(n)
	}
	return true, nil
}

// since returns the text that was added from start on. Nothing is ever appended
// into it.
func (d *decoder) since(start int) []byte {
	return d.text[start:len(d.text):len(d.text)]
}

// structDec decodes into structs of one type.
type structDec struct {
	typ    reflect.Type
	fields []fieldDec
	exact  map[string]*fieldDec
	folded map[string]*fieldDec
}

type fieldDec struct {
	*field
	position int // in structDec.fields
	plan     *decPlan
	destring *destring // for the option string, else nil
}

func compileStructDec(b *decBuild, t reflect.Type) func(*decoder, reflect.Value) error {
	known := fieldsOf(t)
	s := &structDec{
		typ:    t,
		fields: make([]fieldDec, len(known.list)),
		exact:  map[string]*fieldDec{},
		folded: map[string]*fieldDec{},
	}
	of := map[*field]*fieldDec{}
	for i, f := range known.list {
		s.fields[i] = fieldDec{field: f, position: i, plan: b.get(f.typ)}
		if f.quoted {
			s.fields[i].destring = newDestring(f.typ)
		}
		of[f] = &s.fields[i]
	}
	for name, f := range known.exact {
		s.exact[name] = of[f]
	}
	for name, f := range known.folded {
		s.folded[name] = of[f]
	}
	return s.decode
}

func (s *structDec) decode(d *decoder, v reflect.Value) error {
	h := d.head()
	if h.kind != kindMap {
		return d.unfit(h, s.typ)
	}
	if err := d.enter(); err != nil {
		return err
	}
	next := 0 // the field after the last one: most values are written by this very type
	for range h.n {
		name, err := d.key()
		if err != nil {
			return err
		}
		var f *fieldDec
		if next < len(s.fields) && s.fields[next].name == string(name) {
			f = &s.fields[next]
			next++
		} else if f = s.lookup(name); f != nil {
			next = f.position + 1
		}
		if f == nil {
			err = d.skip()
		} else {
			err = s.decodeField(d, f, v)
		}
		if err != nil {
			return err
		}
	}
	d.depth--
	return nil
}

// lookup finds the field of an object key: that of exactly this name, else the
// first whose name differs in case only.
func (s *structDec) lookup(name []byte) *fieldDec {
	if f := s.exact[string(name)]; f != nil {
		return f
	}
	var buf [64]byte
	return s.folded[string(appendFolded(buf[:0], name))]
}

func (s *structDec) decodeField(d *decoder, f *fieldDec, v reflect.Value) error {
	if len(f.index) == 1 {
		v = v.Field(f.index[0])
	} else {
		for _, i := range f.index {
			if v.Kind() == reflect.Pointer {
				if v.IsNil() {
					if !v.CanSet() {
						return d.unsettable(v)
					}
					v.Set(reflect.New(v.Type().Elem()))
				}
				v = v.Elem()
			}
			v = v.Field(i)
		}
	}
	d.path = append(d.path, f.field)
	var err error
	if f.destring != nil {
		err = f.destring.decode(d, f.plan, v)
	} else {
		err = d.value(f.plan, v)
	}
	d.path = d.path[:len(d.path)-1]
	return err
}
