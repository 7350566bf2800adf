package jsonpack_test

import (
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

type textSlice []int

func (s *textSlice) UnmarshalText(b []byte) error { *s = append(*s, len(b)); return nil }

type textMap map[string]int

func (m *textMap) UnmarshalText(b []byte) error { return nil }

type foldTwins struct {
	Other int `json:"x"`
	A     int `json:"ab"`
	B     int `json:"aB"`
}

type nest struct {
	In struct {
		Deep []struct {
			J jsonString
			I int8
		}
	}
	E struct{ Outer }
}

// TestPairs compares with encoding/json over pairs of value and destination
// that made ones seldom meet.
func TestPairs(t *testing.T) {
	type m = map[string]any
	type a = []any
	type pair struct {
		src any
		dst func() any
	}
	set := func(f func(p *any)) func() any {
		return func() any { p := new(any); f(p); return p }
	}
	stale := func() any {
		s := make([]Inner, 3)
		for i := range s {
			s[i] = Inner{i + 1, "stale", i}
		}
		s = s[:1]
		return &s
	}
	var nilZero *zeroPtr
	pairs := map[string]pair{
		"method's own mismatch": {m{"In": m{"Deep": a{m{"I": 300, "J": "x"}, m{"J": false}}}},
			func() any { return new(nest) }},
		"mismatch then method's": {m{"In": m{"Deep": a{m{"J": false}}}}, func() any { return new(nest) }},
		"embedded path":          {m{"E": m{"A": "x", "H": 1.5, "b": 5}}, func() any { return new(nest) }},
		"unnamed promoted methods": {m{"T": "x", "P": "2024-01-02T03:04:05Z"},
			func() any { return new(struct{ T, P struct{ time.Time } }) }},
		"pointer to promoted": {m{"T": "2024-01-02T03:04:05Z"},
			func() any { return new(struct{ T *struct{ time.Time } }) }},
		"top promoted":          {"2024-01-02T03:04:05Z", func() any { return new(struct{ time.Time }) }},
		"named pointer":         {"x", func() any { return new(namedPtr) }},
		"slice beyond its room": {a{m{}, m{"B": "new"}, m{}, m{}, m{}}, stale},
		"slice within its room": {a{m{}, m{"B": "new"}}, stale},
		"anys merge": {a{1, "x", a{}},
			func() any { x, y := 5, Inner{A: 1}; s := a{&x, &y, 3, 4}[:1]; return &s }},
		"anys stop": {a{1, "x", false, 4},
			func() any { s := a{nil, nil, new(jsonString), nil}[:1]; return &s }},
		"anys grow": {a{1, nil, 3, m{}, 5, 6}, func() any { s := a{7, 8, 9}[:1]; return &s }},
		"strings merge": {a{"x", nil, 5, nil, "y"},
			func() any { s := []string{"a", "b", "c", "d"}[:2]; return &struct{ S []string }{s} }},
		"strings null":    {m{"S": nil}, func() any { return &struct{ S []string }{[]string{"a"}} }},
		"strings empty":   {m{"S": a{}}, func() any { return &struct{ S []string }{[]string{"a"}} }},
		"strings misfit":  {m{"S": m{}}, func() any { return &struct{ S []string }{[]string{"a"}} }},
		"slice shrinks":   {a{}, stale},
		"slice null":      {nil, stale},
		"slice misfit":    {m{}, stale},
		"array shrinks":   {a{1}, func() any { return &[3]int{7, 8, 9} }},
		"array overflows": {a{1, m{"x": a{}}, 3}, func() any { return &[1]int{7} }},
		"null text slice": {nil, func() any { return &struct{ X textSlice }{textSlice{1}} }},
		"null text slice field": {m{"X": nil, "Y": nil}, func() any {
			return &struct {
				X textSlice
				Y textMap
			}{textSlice{1}, textMap{"a": 1}}
		}},
		"fold twins":               {m{"AB": 1}, func() any { return new(foldTwins) }},
		"fold twins exact":         {m{"aB": 1, "ab": 2}, func() any { return new(foldTwins) }},
		"fold sharp":               {m{"k": 1, "s": 2, "K": 3, "ſ": 4}, func() any { return new(Tags) }},
		"nil in zero interface":    {Tags{ZeroIf: nilZero}, func() any { return new(m) }},
		"zero interface":           {Tags{ZeroIf: zeroInt(7)}, func() any { return new(m) }},
		"not zero interface":       {Tags{ZeroIf: zeroInt(8)}, func() any { return new(m) }},
		"zero methods":             {Tags{ZeroI: 7, ZeroP: zeroPtr{1}, ZeroPP: &zeroPtr{1}}, func() any { return new(m) }},
		"negative zero to uint":    {math.Copysign(0, -1), func() any { return new(uint) }},
		"negative zero 32 to uint": {float32(math.Copysign(0, -1)), func() any { return new(uint) }},
		"negative zero to int":     {math.Copysign(0, -1), func() any { return new(int) }},
		"2^24+1 to float32":        {1<<24 + 1, func() any { return new(float32) }},
		"2^60+2^36 to float32":     {int64(1<<60 + 1<<36 + 1), func() any { return new(float32) }},
		"midpoint to float32":      {1.00000017881393432617187499, func() any { return new(float32) }},
		"2^62 float to int":        {float64(1 << 62), func() any { return new(int64) }},
		"2^63 float to uint":       {float64(1 << 63), func() any { return new(uint64) }},
		"1e20 to uint":             {1e20, func() any { return new(uint64) }},
		"float32 2^30 to int":      {float32(1 << 30), func() any { return new(int) }},
		"float32 to float64":       {float32(16777216), func() any { return new(float64) }},
		"float to Number":          {1.0, func() any { return new(json.Number) }},
		"float to RawMessage":      {1.0, func() any { return new(json.RawMessage) }},
		"float to big.Int":         {1.0, func() any { return new(big.Int) }},
		"beyond float64 to any":    {json.Number("1e400"), set(func(p *any) { *p = "old" })},
		"beyond, nested":           {a{json.Number("1e400"), 1}, set(func(p *any) { *p = "old" })},
		"beyond, typed":            {json.Number("1e400"), func() any { return new(float64) }},
		"beyond, interface":        {json.Number("1e400"), func() any { return new(stringer) }},
		"beyond, map":              {m{"a": json.Number("1e400")}, func() any { return &m{"a": 1, "b": 2} }},
		"interface with methods":   {5, func() any { return new(stringer) }},
		"any holds pointer":        {5, set(func(p *any) { x := 1; *p = &x })},
		"any holds pointer, null":  {nil, set(func(p *any) { x := 1; *p = &x })},
		"any holds **, null":       {nil, set(func(p *any) { x := new(int); *p = &x })},
		"any holds value":          {5, set(func(p *any) { *p = Inner{} })},
		"any holds nil pointer":    {5, set(func(p *any) { *p = (*int)(nil) })},
		"any holds text method":    {5, set(func(p *any) { *p = new(textInt) })},
		"text method, number":      {a{5, true, a{}, m{}}, func() any { return new([]textInt) }},
		"text method pointers":     {a{5, true, a{}, m{}}, func() any { return new([]*textInt) }},
		"map merges":               {m{"a": m{"B": "x"}}, func() any { return &map[string]Inner{"a": {A: 1}, "b": {A: 2}} }},
		"map of pointers":          {m{"a": m{"B": "x"}}, func() any { return &map[string]*Inner{"a": {A: 1}} }},
		"map elem stays zero":      {m{"a": m{"B": "x"}, "b": m{}}, func() any { return new(map[string]Inner) }},
		"int keys overflow":        {m{"300": 1, "1": 2, "x": 3}, func() any { return new(map[int8]int) }},
		"int keys, elem misfit":    {m{"300": "x"}, func() any { return new(map[int8]int) }},
		"uint keys":                {m{"-1": 1, "1": 2}, func() any { return new(map[uint]int) }},
		"bad key type":             {m{"1": 1}, func() any { return new(map[float64]int) }},
		"bad key type, null":       {nil, func() any { return &map[float64]int{1: 1} }},
		"bad key type, number":     {1, func() any { return &map[float64]int{1: 1} }},
		"json key":                 {m{"a<b": 1}, func() any { return new(map[jsonKey]int) }},
		"text key fails":           {m{"zz": 1}, func() any { return new(map[structKey]int) }},
		"quoted overflow":          {m{"i8": "300", "x": 1, "u": "256", "I": "7"}, func() any { return new(Quoted) }},
		"quoted bad then more":     {m{"b": "maybe", "g": "2", "t": "t5"}, func() any { return new(Quoted) }},
		"quoted fatal":             {m{"I": "abc", "f": "1"}, func() any { return new(Quoted) }},
		"quoted null": {m{"I": nil, "p": nil, "s": "null"},
			func() any { q := new(Quoted); q.I = 5; q.P = new(int16); q.S = "old"; return q }},
		"quoted pointer":         {m{"p": "12"}, func() any { q := new(Quoted); q.P = new(int16); return q }},
		"quoted method mismatch": {m{"j": "false"}, func() any { return new(Quoted) }},
		"quoted plus":            {m{"I": "+5", "f": "0x1p3"}, func() any { return new(Quoted) }},
		"quoted zeros":           {m{"I": "007", "u": "007"}, func() any { return new(Quoted) }},
		"quoted empty":           {m{"I": ""}, func() any { return new(Quoted) }},
		"quoted unquoted":        {m{"I": 5, "u": a{}, "b": true}, func() any { return new(Quoted) }},
		"quoted Number":          {m{"n": "12abc"}, func() any { return new(Quoted) }},
		"quoted bytes":           {m{"I": []byte("\xd7\x6d\xf8"), "s": []byte("x")}, func() any { return new(Quoted) }},
		"quoted html":            {Quoted{S: "<&>\u2028\xff", K: "<"}, func() any { return new(Quoted) }},
		"bytes to Number":        {[]byte("\xd7\x6d\xf8"), func() any { return new(json.Number) }},
		"bytes to bad Number":    {[]byte("x<"), func() any { return new(json.Number) }},
		"empty bytes to Number":  {[]byte{}, func() any { return new(json.Number) }},
		"bytes to named":         {[]byte("x"), func() any { return new(namedBytes) }},
		"bytes to text method":   {[]byte("x"), func() any { return new(textString) }},
		"bytes to json method":   {[]byte("x"), func() any { return new(jsonString) }},
		"bytes to plainByte":     {[]byte("x"), func() any { return new([]plainByte) }},
		"bytes to text bytes":    {[]byte("x"), func() any { return new([]textByte) }},
		"bytes to array":         {[]byte("x"), func() any { return new([4]byte) }},
		"bytes to ints":          {[]byte("x"), func() any { return new([]int) }},
		"text bytes":             {[]textByte{1, 2}, func() any { return new([]string) }},
		"plain bytes":            {[]plainByte{1, 2}, func() any { return new([]byte) }},
		"array to bytes":         {a{1, 2, 255}, func() any { return &[]byte{9, 9, 9, 9, 9} }},
		"array to bytes, misfit": {a{1, 256, "x"}, func() any { return &[]byte{9, 9, 9, 9, 9} }},
		"bad base64":             {"x", func() any { return &[]byte{9} }},
		"base64 with line ends":  {"AA\nEC\r\n", func() any { return new([]byte) }},
		"duplicate keys": {json.RawMessage(`{"A":{"B":"x"},"A":{"C":1}}`),
			func() any { return new(struct{ A Inner }) }},
		"duplicate keys, any":  {json.RawMessage(`{"a":1,"a":[2]}`), func() any { return new(m) }},
		"hidden pointer":       {m{"A": 1, "Y": 2}, func() any { return new(OuterHidden) }},
		"hidden pointer, null": {m{"A": nil, "Y": 2}, func() any { return new(OuterHidden) }},
		"hidden pointer, set":  {m{"A": 1, "Y": 2}, func() any { return &OuterHidden{hiddenToo: &hiddenToo{}} }},
		"hidden named": {m{"h": m{"H": 1}, "i": m{"A": 2}, "in": m{"A": 3}},
			func() any { return new(NamedHidden) }},
		"twice":      {Twice{L1{Inner{A: 1}}, L2{Inner{A: 2}}}, func() any { return new(m) }},
		"into twice": {m{"A": 1, "B": "x"}, func() any { return new(Twice) }},
		"rec":        {&Rec{Rec: &Rec{A: 2}, A: 1, Loop: &Rec{A: 3}}, func() any { return new(Rec) }},
		"nil rec":    {Rec{A: 1}, func() any { return new(Rec) }},
		"chan": {m{"C": nil, "F": 1, "X": a{}}, func() any {
			return new(struct {
				C chan int
				F func()
				X complex64
			})
		}},
		"not addressable":        {ptrBoth{"x"}, func() any { return new(ptrBoth) }},
		"addressable":            {&ptrBoth{"x"}, func() any { return new(ptrBoth) }},
		"not addressable in map": {map[string]ptrJSON{"a": {1}}, func() any { return new(m) }},
		"addressable in slice":   {[]ptrJSON{{1}}, func() any { return new(a) }},
		"sixteen of them":        {Sixteen{A: 1, Q: 2}, func() any { return new(Sixteen) }},
		"every field": {Sixteen{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
			func() any { return new(Sixteen) }},
		"unknown nested":     {m{"zz": m{"q": a{1, m{"r": a{}}}}, "x": 5}, func() any { return new(Outer) }},
		"wide unknown":       {m{"zz": make([]int, 70000), "x": 5}, func() any { return new(Outer) }},
		"control characters": {"\b\f\n\r\t\x00\x1f\x7f\"\\/", func() any { return new(json.RawMessage) }},
		"long escapes":       {strings.Repeat("<\n\xff", 100), func() any { return new(json.RawMessage) }},
	}
	for name, p := range pairs {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(p.src)
			require.NoError(t, err)
			compareDecode(t, text, pack(t, p.src), p.dst(), p.dst(), new(counts))
			moved, err := jsonpack.AppendFromJSON(nil, text, 0)
			require.NoError(t, err)
			compareDecode(t, text, moved, p.dst(), p.dst(), new(counts))
			got := reflect.ValueOf(p.dst())
			require.NoError(t, jsonpack.Unmarshal([]byte{0xc0}, got.Interface()))
		})
	}
}
