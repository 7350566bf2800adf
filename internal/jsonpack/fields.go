package jsonpack

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// field is a struct field that takes part in JSON.
type field struct {
	name  string
	index []int // the way to it, through embedded structs
	typ   reflect.Type

	tagged     bool // the name comes from the tag
	omitEmpty  bool
	omitZero   bool
	quoted     bool // the tag's option string applies
	viaPointer bool // an embedded pointer is on the way

	zeroMethod zeroMethod
	owner      reflect.Type // the struct that was asked for
	path       []string     // what an error calls the field: embedded names, then name
}

// zeroMethod says how omitzero finds the IsZero method of a field's type.
type zeroMethod uint8

const (
	zeroNone zeroMethod = iota
	zeroInterface
	zeroPointer
	zeroValue
	zeroAddress
)

type zeroer interface{ IsZero() bool }

var zeroerType = reflect.TypeFor[zeroer]()

// structFields are the fields of one struct type.
type structFields struct {
	list   []*field          // in the order in which they are written
	exact  map[string]*field // by name
	folded map[string]*field // by fold(name), the first in the list of those that share one
}

var fieldCache sync.Map // reflect.Type -> *structFields

// fieldsOf returns the fields of the struct type t by the rules of
// encoding/json: the least nested one of a name wins, among those the only
// tagged one, and where that leaves several, none.
func fieldsOf(t reflect.Type) *structFields {
	if s, ok := fieldCache.Load(t); ok {
		return s.(*structFields)
	}
	byName := map[string][]*field{}
	collectFields(t, func(f *field) { byName[f.name] = append(byName[f.name], f) })
	s := &structFields{exact: map[string]*field{}, folded: map[string]*field{}}
	for name, candidates := range byName {
		if f := dominant(candidates); f != nil {
			f.resolve(t)
			s.list = append(s.list, f)
			s.exact[name] = f
		}
	}
	slices.SortFunc(s.list, func(a, b *field) int { return slices.Compare(a.index, b.index) })
	for _, f := range s.list {
		key := string(appendFolded(nil, []byte(f.name)))
		if s.folded[key] == nil {
			s.folded[key] = f
		}
	}
	actual, _ := fieldCache.LoadOrStore(t, s)
	return actual.(*structFields)
}

// dominant returns the one field that others of its name cannot hide, or nil.
func dominant(candidates []*field) *field {
	slices.SortStableFunc(candidates, func(a, b *field) int {
		if c := cmp.Compare(len(a.index), len(b.index)); c != 0 || a.tagged == b.tagged {
			return c
		}
		if a.tagged {
			return -1
		}
		return 1
	})
	if len(candidates) > 1 {
		a, b := candidates[0], candidates[1]
		if len(a.index) == len(b.index) && a.tagged == b.tagged {
			return nil
		}
	}
	return candidates[0]
}

// collectFields calls found for the fields of t and, level by level, for those
// of the structs embedded in it. A struct type counts at its least nested level
// only; where it occurs there several times, each of its fields is reported
// twice, so that dominant sees the conflict.
func collectFields(t reflect.Type, found func(*field)) {
	type embedded struct {
		typ   reflect.Type
		index []int
		times int
	}
	visited := map[reflect.Type]bool{}
	level := []*embedded{{typ: t, times: 1}}
	for len(level) > 0 {
		var next []*embedded
		for _, e := range level {
			if visited[e.typ] {
				continue
			}
			visited[e.typ] = true
			for i := range e.typ.NumField() {
				sf := e.typ.Field(i)
				f, into, ok := newField(sf)
				if !ok {
					continue
				}
				index := append(slices.Clone(e.index), i)
				if f != nil {
					f.index = index
					found(f)
					if e.times > 1 {
						twin := *f
						found(&twin)
					}
					continue
				}
				known := slices.IndexFunc(next, func(n *embedded) bool { return n.typ == into })
				if known >= 0 {
					next[known].times++
				} else {
					next = append(next, &embedded{typ: into, index: index, times: 1})
				}
			}
		}
		level = next
	}
}

// newField reads a struct field's tag. It returns the field, or the embedded
// struct type whose fields take its place; false if JSON ignores it.
func newField(sf reflect.StructField) (f *field, into reflect.Type, ok bool) {
	if sf.Anonymous {
		t := sf.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		// The fields of an unexported struct may be exported ones.
		if !sf.IsExported() && t.Kind() != reflect.Struct {
			return nil, nil, false
		}
	} else if !sf.IsExported() {
		return nil, nil, false
	}
	tag := sf.Tag.Get("json")
	if tag == "-" {
		return nil, nil, false
	}
	name, options, _ := strings.Cut(tag, ",")
	if !validName(name) {
		name = ""
	}
	base := sf.Type
	if base.Name() == "" && base.Kind() == reflect.Pointer {
		base = base.Elem()
	}
	if name == "" && sf.Anonymous && base.Kind() == reflect.Struct {
		return nil, base, true
	}
	f = &field{name: cmp.Or(name, sf.Name), typ: sf.Type, tagged: name != ""}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty":
			f.omitEmpty = true
		case "omitzero":
			f.omitZero = true
		case "string":
			switch k := base.Kind(); k {
			case reflect.String, reflect.Float32, reflect.Float64:
				f.quoted = true
			default:
				f.quoted = k >= reflect.Bool && k <= reflect.Uintptr
			}
		}
	}
	return f, nil, true
}

// validName reports whether a tag can name a field.
func validName(s string) bool {
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) {
			return false
		}
	}
	return s != ""
}

// resolve fills in what depends on the struct t that was asked for.
func (f *field) resolve(t reflect.Type) {
	f.owner = t
	for i, x := range f.index {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
			f.viaPointer = true
		}
		sf := t.Field(x)
		if i < len(f.index)-1 {
			f.path = append(f.path, sf.Name)
		}
		t = sf.Type
	}
	f.path = append(f.path, f.name)
	switch {
	case !t.Implements(zeroerType):
		if reflect.PointerTo(t).Implements(zeroerType) {
			f.zeroMethod = zeroAddress
		}
	case t.Kind() == reflect.Interface:
		f.zeroMethod = zeroInterface
	case t.Kind() == reflect.Pointer:
		f.zeroMethod = zeroPointer
	default:
		f.zeroMethod = zeroValue
	}
}

// find returns the field in the struct v, and false if a nil embedded pointer
// is on the way.
func (f *field) find(v reflect.Value) (reflect.Value, bool) {
	if len(f.index) == 1 {
		return v.Field(f.index[0]), true
	}
	for _, i := range f.index {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return v, false
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, true
}

// isZero says what omitzero leaves out.
func (f *field) isZero(v reflect.Value) (bool, error) {
	switch f.zeroMethod {
	case zeroNone:
		return v.IsZero(), nil
	case zeroInterface:
		if v.IsNil() || v.Elem().Kind() == reflect.Pointer && v.Elem().IsNil() {
			return true, nil
		}
	case zeroPointer:
		if v.IsNil() {
			return true, nil
		}
	}
	if !v.CanInterface() {
		return false, errHidden(v)
	}
	if f.zeroMethod == zeroAddress {
		if !v.CanAddr() {
			boxed := reflect.New(v.Type()).Elem()
			boxed.Set(v)
			v = boxed
		}
		v = v.Addr()
	}
	return v.Interface().(zeroer).IsZero(), nil
}

// appendFolded appends name such that two names give the same exactly if
// bytes.EqualFold holds for them.
func appendFolded(dst, name []byte) []byte {
	for i := 0; i < len(name); {
		c := name[i]
		if c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(name[i:])
		i += size
		// SimpleFold walks the runes that fold together in a circle: the
		// smallest stands for all of them.
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		dst = utf8.AppendRune(dst, least)
	}
	return dst
}
