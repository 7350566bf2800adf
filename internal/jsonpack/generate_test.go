package jsonpack_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// source turns bytes into decisions. Past their end every decision is 0, which
// always is a leaf, so that generation ends.
type source struct {
	data []byte
	pos  int
}

func (s *source) byte() int {
	if s.pos >= len(s.data) {
		return 0
	}
	s.pos++
	return int(s.data[s.pos-1])
}

func (s *source) n(n int) int { return s.byte() % n }

func pick[T any](s *source, of []T) T { return of[s.n(len(of))] }

// Named types with methods, tags and embedding. Their names say what is special.

type textInt int

func (t textInt) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "t%d", int(t)), nil }
func (t *textInt) UnmarshalText(b []byte) error {
	_, err := fmt.Sscanf(string(b), "t%d", (*int)(t))
	return err
}

type textString string

func (t textString) MarshalText() ([]byte, error)  { return []byte("<" + t + ">"), nil }
func (t *textString) UnmarshalText(b []byte) error { *t = textString(b); return nil }

type jsonString string

func (j jsonString) MarshalJSON() ([]byte, error) {
	if j == "bad" {
		return []byte(`{"x":`), nil
	}
	if j == "err" {
		return nil, fmt.Errorf("no")
	}
	return json.Marshal(map[string]any{"s": string(j), "n": json.Number("1.50")})
}

func (j *jsonString) UnmarshalJSON(b []byte) error {
	if string(b) == "false" {
		return &json.UnmarshalTypeError{Value: "no", Type: reflect.TypeFor[int](), Field: "deep"}
	}
	*j = jsonString(canonical(b))
	return nil
}

type ptrJSON struct{ N int }

func (p *ptrJSON) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, ` { "p" : [ %d , 1e2, 1.0, "\u0041\ud800" ] } `, p.N), nil
}
func (p *ptrJSON) UnmarshalJSON(b []byte) error { p.N = len(canonical(b)); return nil }

type ptrText struct{ S string }

func (p *ptrText) MarshalText() ([]byte, error) { return []byte(p.S), nil }
func (p *ptrText) UnmarshalText(b []byte) error { p.S = string(b); return nil }

type ptrBoth struct{ S string }

func (p *ptrBoth) MarshalJSON() ([]byte, error) { return json.Marshal([]string{p.S}) }
func (p ptrBoth) MarshalText() ([]byte, error)  { return []byte("both" + p.S), nil }
func (p *ptrBoth) UnmarshalText(b []byte) error { p.S = "text" + string(b); return nil }
func (p *ptrBoth) UnmarshalJSON(b []byte) error { p.S = canonical(b); return nil }

type textByte uint8

func (t textByte) MarshalText() ([]byte, error) { return []byte{'b', '0' + byte(t)%10}, nil }

type plainByte uint8
type namedBytes []byte
type namedMap map[string]any
type namedSlice []any
type namedAny any
type namedPtr *jsonString
type kindString string
type stringer interface{ String() string }
type zeroInt int

func (z zeroInt) IsZero() bool { return z == 7 }

type zeroPtr struct{ N int }

func (z *zeroPtr) IsZero() bool { return z.N == 1 }

type structKey struct{ A, B int8 }

func (k structKey) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d:%d", k.A, k.B), nil }
func (k *structKey) UnmarshalText(b []byte) error {
	_, err := fmt.Sscanf(string(b), "%d:%d", &k.A, &k.B)
	return err
}

type jsonKey string

func (k *jsonKey) UnmarshalJSON(b []byte) error { *k = jsonKey("j" + canonical(b)); return nil }
func (k *jsonKey) UnmarshalText(b []byte) error { *k = jsonKey("t" + string(b)); return nil }

type Inner struct {
	A int `json:",omitempty"`
	B string
	C any
}

type Other struct {
	B string `json:"b"`
	D *int   `json:"A,string"`
	E []Inner
}

type hidden struct {
	H int
	B float64
}

type hiddenToo struct {
	I int `json:"A"`
	J map[string]int
}

type Outer struct {
	Inner
	*Other
	hidden
	X int `json:"x"`
}

type OuterHidden struct {
	*hiddenToo
	Y int
}

type NamedHidden struct {
	hidden    `json:"h"`
	hiddenToo `json:"i"`
	Inner     `json:"in"`
}

type Conflict struct {
	Inner
	Other2
	B int `json:"-"`
}

type Other2 struct{ A, B, K, S int }

type Twice struct {
	L1
	L2
}
type L1 struct{ Inner }
type L2 struct{ Inner }

type Quoted struct {
	I  int         `json:",string"`
	U  uint8       `json:"u,string"`
	F  float64     `json:"f,string,omitempty"`
	G  float32     `json:"g,string"`
	B  bool        `json:"b,string"`
	S  string      `json:"s,string"`
	P  *int16      `json:"p,string"`
	N  json.Number `json:"n,string"`
	T  textInt     `json:"t,string"`
	J  jsonString  `json:"j,string"`
	K  kindString  `json:"k,string"`
	PP **int       `json:"pp,string"`
	M  []int       `json:"m,string"`
	I8 int8        `json:"i8,string"`
}

type Tags struct {
	Minus   int                        `json:"-"`
	Dash    int                        `json:"-,"`
	Punct   int                        `json:"a<&>b"`
	Bad     int                        `json:"a\"b"`
	Kelvin  int                        `json:"K"`
	Long    int                        `json:"ſ"`
	OmitM   map[string]int             `json:"om,omitempty"`
	OmitP   *int                       `json:"op,omitempty"`
	OmitA   [0]int                     `json:"oa,omitempty"`
	OmitS   struct{}                   `json:"os,omitempty"`
	OmitI   any                        `json:"oi,omitempty"`
	ZeroT   time.Time                  `json:"zt,omitzero"`
	ZeroI   zeroInt                    `json:"zi,omitzero"`
	ZeroP   zeroPtr                    `json:"zp,omitzero"`
	ZeroPP  *zeroPtr                   `json:"zpp,omitzero"`
	ZeroIf  interface{ IsZero() bool } `json:"zif,omitzero"`
	ZeroArr [2]int                     `json:"za,omitzero"`
	Both    []int                      `json:"both,omitempty,omitzero"`
	Iface   stringer                   `json:"iface"`
	Text    encoding.TextMarshaler
	Un      json.Unmarshaler
	_       int
}

type List struct {
	V    any
	Next *List `json:",omitempty"`
	Kids []*List
	M    map[string]List
}

type Sixteen struct {
	A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q int `json:",omitempty"`
}

// named are the types that a generated type is often built of.
var named = []reflect.Type{
	reflect.TypeFor[textInt](), reflect.TypeFor[textString](), reflect.TypeFor[jsonString](),
	reflect.TypeFor[ptrJSON](), reflect.TypeFor[ptrText](), reflect.TypeFor[ptrBoth](),
	reflect.TypeFor[textByte](), reflect.TypeFor[plainByte](), reflect.TypeFor[namedBytes](),
	reflect.TypeFor[namedMap](), reflect.TypeFor[namedSlice](), reflect.TypeFor[namedAny](),
	reflect.TypeFor[namedPtr](), reflect.TypeFor[kindString](), reflect.TypeFor[stringer](),
	reflect.TypeFor[zeroInt](), reflect.TypeFor[structKey](), reflect.TypeFor[jsonKey](),
	reflect.TypeFor[Inner](), reflect.TypeFor[Other](), reflect.TypeFor[Outer](),
	reflect.TypeFor[OuterHidden](), reflect.TypeFor[NamedHidden](), reflect.TypeFor[Conflict](),
	reflect.TypeFor[Twice](), reflect.TypeFor[Quoted](), reflect.TypeFor[Tags](), reflect.TypeFor[List](),
	reflect.TypeFor[Sixteen](), reflect.TypeFor[json.Number](), reflect.TypeFor[json.RawMessage](),
	reflect.TypeFor[time.Time](), reflect.TypeFor[big.Int](), reflect.TypeFor[netip.Addr](),
	reflect.TypeFor[time.Duration](), reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.Unmarshaler](),
	reflect.TypeFor[map[string]any](), reflect.TypeFor[[]any](), reflect.TypeFor[map[string]string](),
	reflect.TypeFor[[]string](), reflect.TypeFor[[]int](), reflect.TypeFor[[]byte](),
	reflect.TypeFor[chan int](), reflect.TypeFor[func()](), reflect.TypeFor[complex64](), reflect.TypeFor[Rec](),
	reflect.TypeFor[*time.Time](),
}

var basics = []reflect.Type{
	reflect.TypeFor[any](), reflect.TypeFor[int](), reflect.TypeFor[string](), reflect.TypeFor[bool](),
	reflect.TypeFor[int8](), reflect.TypeFor[int16](), reflect.TypeFor[int32](), reflect.TypeFor[int64](),
	reflect.TypeFor[uint](), reflect.TypeFor[uint8](), reflect.TypeFor[uint16](), reflect.TypeFor[uint32](),
	reflect.TypeFor[uint64](), reflect.TypeFor[uintptr](), reflect.TypeFor[float32](), reflect.TypeFor[float64](),
}

var keys = []reflect.Type{
	reflect.TypeFor[string](), reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[uint8](),
	reflect.TypeFor[uint64](), reflect.TypeFor[textInt](), reflect.TypeFor[textString](), reflect.TypeFor[kindString](),
	reflect.TypeFor[structKey](), reflect.TypeFor[jsonKey](), reflect.TypeFor[zeroInt](), reflect.TypeFor[bool](),
	reflect.TypeFor[float64](), reflect.TypeFor[netip.Addr](),
}

var (
	fieldNames = []string{"A", "B", "C", "D", "AB", "Ab", "K", "S", "X", "H"}
	tagNames   = []string{"", "a", "A", "b", "ab", "aB", "x", "K", "ſ", "-", "in", "h", "u", "I"}
	tagOptions = []string{"", "", "", ",omitempty", ",omitzero", ",string", ",string,omitempty"}
)

// typ makes a type.
func (s *source) typ(depth int) reflect.Type {
	if depth <= 0 {
		return pick(s, basics)
	}
	switch s.n(12) {
	case 0, 1:
		return pick(s, basics)
	case 2, 3, 4, 5:
		return pick(s, named)
	case 6:
		return reflect.PointerTo(s.typ(depth - 1))
	case 7:
		return reflect.SliceOf(s.typ(depth - 1))
	case 8:
		return reflect.ArrayOf(s.n(4), s.typ(depth-1))
	case 9:
		return reflect.MapOf(pick(s, keys), s.typ(depth-1))
	}
	var fields []reflect.StructField
	used := map[string]bool{}
	for range s.n(6) {
		f := reflect.StructField{Name: pick(s, fieldNames), Type: s.typ(depth - 1)}
		if used[f.Name] {
			continue
		}
		used[f.Name] = true
		f.Tag = reflect.StructTag(`json:"` + pick(s, tagNames) + pick(s, tagOptions) + `"`)
		fields = append(fields, f)
	}
	if s.n(4) == 1 && !used["Inner"] {
		t := reflect.TypeFor[Inner]()
		if s.n(2) == 1 {
			t = reflect.PointerTo(t)
		}
		fields = append(fields, reflect.StructField{Name: "Inner", Type: t, Anonymous: true})
	}
	return reflect.StructOf(fields)
}

var (
	strs = []string{
		"", "a", "A", "b", "<>&\u2028\u2029", "\xff\xfe", "123", "-5", "true", "null", "\"q\"", "1e5", "AAEC", "12AB", "t5",
		"3:4",
		strings.Repeat("x", 31), strings.Repeat("y", 32), strings.Repeat("é", 150), strings.Repeat("z", 256),
		"2024-01-02T03:04:05.123456789+02:00",
		"\x00\x01\t\n\\/", "\U0001F600", "10.0.0.1", "bad", "err", "\"\\u0041\"", "nul", "tru", "300", "1.5", "x.y", "-0",
		"a\xc3", "1.50",
	}
	ints = []int64{0, 1, -1, 7, 15, 16, 31, 32, -32, -33, 127, 128, -128, -129, 255, 256, 300, 32767, 32768, -32768,
		-32769, 65535, 65536, math.MaxInt32, math.MaxInt32 + 1, math.MinInt32, math.MinInt32 - 1, math.MaxUint32,
		math.MaxUint32 + 1, 1 << 53, 1<<53 + 1, 1<<24 + 1, math.MaxInt64, math.MinInt64}
	floats = []float64{0, 1, -1, math.Copysign(0, -1), 0.1, 1.5, 1e-6, 9.9e-7, 1e20, 1e21, 1 << 53, 1<<53 + 2, 1 << 62,
		1 << 63, 5e-324, math.MaxFloat64, math.MaxFloat32, 3.5e38, 16777217, 1.00000017881393432617187499,
		1.00000017881393421514957253748434595763683319091796875001, 1e-45, 300, -129, 0.30000000000000004, 1e15,
		123456789.125}
	nums = []string{"", "0", "1.50", "1e2", "100000000000000000000000", "-0", "-0.0", "0.1", "1E400", "1.0",
		"18446744073709551615", "18446744073709551616", "-9223372036854775808", "-9223372036854775809",
		"0.1234567890123456789012345", "1e-7", "1e+21", "5e-324", "1e-400", "bad", "01", "300.0"}
	raws = []string{`null`, `1`, `1.0`, ` { "b" : 1, "a" : [ 1e2 , -0 , "\u00e9\ud83d\ude00\udc00" ], "a" : "x" } `,
		`[]`, `{}`, `"AAEC"`, `"<\/"`, `{"A":{"A":1,"B":"x"},"b":"y","X":null,"Ab":[1,2,{"h":1}]}`,
		`[1,-1,300,1.5,"x",null,true,[],{}]`, `12345678901234567890123`, "\"\xff\"",
		`{"H":1,"J":{"x":1},"I":"5","u":"300","f":"1.5","p":"7","i8":"300","n":"1","t":"t1","k":"\"v\""}`, `{"`, `[1,]`,
		`tru`}
	times = []time.Time{{}, time.Unix(0, 1).UTC(), time.Date(2024, 1, 2, 3, 4, 5, 123456789, time.FixedZone("x", 7200)),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}
)

// fill sets v to a made value.
func (s *source) fill(v reflect.Value, depth int) {
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = pick(s, times)
		return
	case *big.Int:
		p.SetString(pick(s, []string{"0", "5", "-7", "10000000000000000000000000000000000000000", "18446744073709551616",
			"9007199254740993"}), 10)
		return
	case *netip.Addr:
		*p = pick(s, []netip.Addr{{}, netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("fe80::1%eth0")})
		return
	case *json.Number:
		*p = json.Number(pick(s, nums))
		return
	case *json.RawMessage:
		if s.n(8) > 0 {
			*p = json.RawMessage(pick(s, raws))
		}
		return
	case *stringer:
		if s.n(2) > 0 {
			*p = time.Duration(5)
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(s.n(2) == 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(pick(s, ints))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(uint64(pick(s, ints)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(pick(s, floats))
		if s.n(40) == 1 {
			v.SetFloat(math.NaN())
		}
		if f := v.Float(); math.IsInf(f, 0) && s.n(4) > 0 {
			v.SetFloat(2)
		}
	case reflect.String:
		v.SetString(pick(s, strs))
	case reflect.Interface:
		if depth <= 0 || s.n(4) == 0 {
			return
		}
		t := s.typ(min(depth-1, 2))
		x := reflect.New(t)
		s.fill(x.Elem(), depth-1)
		if s.n(3) != 1 {
			x = x.Elem()
		}
		if x.Type().Implements(v.Type()) && x.IsValid() && !(x.Kind() == reflect.Interface && x.IsNil()) {
			v.Set(x)
		}
	case reflect.Pointer:
		if depth > 0 && s.n(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			s.fill(v.Elem(), depth-1)
		}
	case reflect.Slice:
		if depth <= 0 || s.n(6) == 0 {
			return
		}
		n := s.n(5)
		if s.n(20) == 1 {
			n = 17
		}
		// Capacity beyond the length holds values of an earlier life.
		full := reflect.MakeSlice(v.Type(), n+s.n(3), n+3)
		for i := range full.Len() {
			s.fill(full.Index(i), depth-1)
		}
		v.Set(full.Slice(0, n))
	case reflect.Array:
		for i := range v.Len() {
			s.fill(v.Index(i), depth-1)
		}
	case reflect.Map:
		if depth <= 0 || s.n(6) == 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range s.n(5) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			s.fill(k, 0)
			s.fill(e, depth-1)
			if f := k; f.Kind() == reflect.Float64 && f.Float() != f.Float() {
				continue
			}
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				s.fill(f, depth-1)
			} else if v.Type().Field(i).Anonymous && f.Kind() == reflect.Struct {
				for j := range f.NumField() {
					if g := f.Field(j); g.CanSet() {
						s.fill(g, depth-1)
					}
				}
			}
		}
	}
}

// Rec embeds itself.
type Rec struct {
	*Rec
	_    int
	A    int
	Loop *Rec `json:"l,omitempty"`
	_    []string
	List []*Rec `json:",omitempty"`
}
