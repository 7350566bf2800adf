package jsonpack_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

// pack encodes v and proves that Scan accepts the result.
func pack(t testing.TB, v any) []byte {
	t.Helper()
	data, err := jsonpack.Append(nil, v, 0)
	require.NoError(t, err)
	require.NoError(t, jsonpack.Scan(data))
	return data
}

// TestSemantics_Any ensures what an any gets for each kind of value.
func TestSemantics_Any(t *testing.T) {
	var (
		nilPtr   *int
		nilMap   map[string]int
		nilSlice []string
		big40, _ = new(big.Int).SetString("1"+strings.Repeat("0", 40), 10)
		at       = time.Date(2024, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 7200))
		everyRun strings.Builder
	)
	for r := rune(0); r <= 0x10ffff; r++ {
		if r < 0xd800 || r > 0xdfff {
			everyRun.WriteRune(r)
		}
	}
	for name, c := range map[string]struct{ set, want any }{
		"nil":               {nil, nil},
		"nil pointer":       {nilPtr, nil},
		"nil map":           {nilMap, nil},
		"nil slice":         {nilSlice, nil},
		"nil bytes":         {[]byte(nil), nil},
		"bool":              {true, true},
		"string":            {"a\x00b", "a\x00b"},
		"every rune":        {everyRun.String(), everyRun.String()},
		"invalid UTF-8":     {"a\xff\xc3b", "a\ufffd\ufffdb"},
		"int":               {-7, int64(-7)},
		"int8":              {int8(-128), int64(-128)},
		"uint8":             {uint8(255), int64(255)},
		"uint16":            {uint16(65535), int64(65535)},
		"2^53+1":            {int64(1<<53 + 1), int64(1<<53 + 1)},
		"MinInt64":          {int64(math.MinInt64), int64(math.MinInt64)},
		"MaxInt64":          {uint64(math.MaxInt64), int64(math.MaxInt64)},
		"MaxUint64":         {uint64(math.MaxUint64), uint64(math.MaxUint64)},
		"json.Number":       {json.Number("5"), int64(5)},
		"json.Number float": {json.Number("1.50"), 1.5},
		"json.Number 10^40": {json.Number(big40.String()), json.Number(big40.String())},
		"big.Int":           {big40, json.Number(big40.String())},
		"below int64":       {json.Number("-9223372036854775809"), json.Number("-9223372036854775809")},
		"1.0":               {1.0, 1.0},
		"-0.0":              {math.Copysign(0, -1), math.Copysign(0, -1)},
		"5e-324":            {5e-324, 5e-324},
		"1.7e308":           {1.7e308, 1.7e308},
		"1e20":              {1e20, 1e20},
		"1e21":              {1e21, 1e21},
		"float32":           {float32(0.1), 0.1},
		"float32 1":         {float32(1), 1.0},
		"float32 -0":        {float32(math.Copysign(0, -1)), math.Copysign(0, -1)},
		"array":             {[]any{1, "x", nil, 2.0}, []any{int64(1), "x", nil, 2.0}},
		"object":            {map[string]any{"a": []any{1.0}}, map[string]any{"a": []any{1.0}}},
		"empty array":       {[]any{}, []any{}},
		"empty object":      {map[string]any{}, map[string]any{}},
		"typed empty":       {[]int{}, []any{}},
		"int keys":          {map[int]string{-1: "a", 10: "b"}, map[string]any{"-1": "a", "10": "b"}},
		"text keys":         {map[textInt]int{4: 1}, map[string]any{"t4": int64(1)}},
		"bytes":             {[]byte{0, 1, 2}, "AAEC"},
		"byte array":        {[3]byte{0, 1, 2}, []any{int64(0), int64(1), int64(2)}},
		"struct":            {struct{ A float64 }{3}, map[string]any{"A": 3.0}},
		"struct pointer":    {&struct{ A int }{3}, map[string]any{"A": int64(3)}},
		"Marshaler":         {jsonString("v"), map[string]any{"n": 1.5, "s": "v"}},
		"TextMarshaler":     {textInt(3), "t3"},
		"time":              {at, "2024-01-02T03:04:05.123456789+02:00"},
		"RawMessage": {json.RawMessage(` {"a": [1, 1.0, 1e2, -0]} `),
			map[string]any{"a": []any{int64(1), 1.0, 100.0, math.Copysign(0, -1)}}},
		"nested RawMessage":   {map[string]any{"r": json.RawMessage("7")}, map[string]any{"r": int64(7)}},
		"interface to struct": {[]any{&struct{ F float32 }{0.5}}, []any{map[string]any{"F": 0.5}}},
	} {
		t.Run(name, func(t *testing.T) {
			data := pack(t, c.set)
			var got any = "old"
			require.NoError(t, jsonpack.Unmarshal(data, &got))
			require.Equal(t, c.want, got)
			if f, ok := c.want.(float64); ok {
				require.Equal(t, math.Float64bits(f), math.Float64bits(got.(float64)))
			}
			field := struct{ X any }{"old"}
			require.NoError(t, jsonpack.Unmarshal(pack(t, struct{ X any }{c.set}), &field))
			require.Equal(t, c.want, field.X)
		})
	}
}

// TestSemantics_Exact ensures that what is typed comes back as it was.
func TestSemantics_Exact(t *testing.T) {
	at := time.Date(2024, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 7200))
	var gotTime time.Time
	require.NoError(t, jsonpack.Unmarshal(pack(t, at), &gotTime))
	require.True(t, at.Equal(gotTime))
	_, offset := gotTime.Zone()
	require.Equal(t, 7200, offset)

	for _, f := range []float32{0.1, 1, math.MaxFloat32, math.SmallestNonzeroFloat32, 16777217, 1e21, 1e-7,
		float32(math.Copysign(0, -1))} {
		var got float32
		require.NoError(t, jsonpack.Unmarshal(pack(t, f), &got))
		require.Equal(t, math.Float32bits(f), math.Float32bits(got))
	}
	for _, f := range []float64{0.1, 1, math.MaxFloat64, math.SmallestNonzeroFloat64, 1e21, math.Copysign(0, -1)} {
		var got float64
		require.NoError(t, jsonpack.Unmarshal(pack(t, f), &got))
		require.Equal(t, math.Float64bits(f), math.Float64bits(got))
	}
	for _, digits := range []string{"1" + strings.Repeat("0", 40), "18446744073709551616", "-5",
		strings.Repeat("9", 70000)} {
		want, _ := new(big.Int).SetString(digits, 10)
		got, value := new(big.Int), big.Int{}
		require.NoError(t, jsonpack.Unmarshal(pack(t, want), &got))
		require.Equal(t, digits, got.String())
		require.NoError(t, jsonpack.Unmarshal(pack(t, want), &value))
		require.Equal(t, digits, value.String())
	}
	for _, lit := range []string{"1.50", "1e2", "1E+2", "0.1234567890123456789012345", "-0", "-0.0", "1.0", "10", "1e400",
		"100000000000000000000", "1e+21", "1e-7", "1.5"} {
		var got json.Number
		require.NoError(t, jsonpack.Unmarshal(pack(t, json.Number(lit)), &got))
		require.Equal(t, lit, string(got))
		require.NoError(t, jsonpack.Unmarshal(pack(t, json.RawMessage(lit)), &got))
		require.Equal(t, lit, string(got))
		text, err := jsonpack.AppendJSON(nil, pack(t, json.Number(lit)))
		require.NoError(t, err)
		require.Equal(t, lit, string(text))
	}
	var bytes []byte
	require.NoError(t, jsonpack.Unmarshal(pack(t, []byte("\x00\xff")), &bytes))
	require.Equal(t, []byte("\x00\xff"), bytes)
	require.NoError(t, jsonpack.Unmarshal(pack(t, "AAEC"), &bytes))
	require.Equal(t, []byte{0, 1, 2}, bytes)
	require.NoError(t, jsonpack.Unmarshal(pack(t, []byte{}), &bytes))
	require.Equal(t, []byte{}, bytes)
}

// TestSemantics_Misfit ensures that a number that does not fit is an error of
// encoding/json's kind and leaves the rest of the destination filled.
func TestSemantics_Misfit(t *testing.T) {
	src := map[string]any{"A": 300, "B": -1, "C": 1.5, "D": "ok"}
	dst := struct {
		A int8
		B uint
		C int
		D string
	}{1, 2, 3, ""}
	err := jsonpack.Unmarshal(pack(t, src), &dst)
	var mismatch *json.UnmarshalTypeError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, "number 300", mismatch.Value)
	require.Equal(t, "A", mismatch.Field)
	require.Equal(t, "json: cannot unmarshal number 300 into Go struct field .A of type int8", err.Error())
	require.Equal(t, int8(1), dst.A)
	require.Equal(t, uint(2), dst.B)
	require.Equal(t, 3, dst.C)
	require.Equal(t, "ok", dst.D)

	var invalid *json.InvalidUnmarshalError
	for _, bad := range []any{nil, 5, (*int)(nil), (*any)(nil), (*string)(nil), (*[]byte)(nil), (*map[string]any)(nil)} {
		require.ErrorAs(t, jsonpack.Unmarshal([]byte{1}, bad), &invalid)
	}
}

// TestSemantics_Unsupported ensures that what JSON cannot hold is refused, with
// the destination buffer as it was.
func TestSemantics_Unsupported(t *testing.T) {
	selfMap := map[string]any{}
	selfMap["x"] = selfMap
	selfSlice := make([]any, 1)
	selfSlice[0] = selfSlice
	type node struct {
		Next *node
		V    int
	}
	ring := &node{}
	ring.Next = ring
	var long *node
	for range 1_000_000 {
		long = &node{Next: long}
	}
	type self *self
	var pointers self
	pointers = &pointers
	var loop any
	loop = &loop
	type deepMap map[string]deepMap
	typed := deepMap{}
	typed["x"] = typed
	for name, v := range map[string]any{
		"NaN": math.NaN(), "Inf": math.Inf(1), "-Inf": math.Inf(-1), "NaN32": float32(math.NaN()),
		"nested NaN": []any{map[string]any{"x": math.NaN()}}, "typed Inf": []float64{math.Inf(1)},
		"chan": make(chan int), "func": func() {}, "complex": 1i, "nil chan": (chan int)(nil),
		"nested func": struct{ F func() }{}, "map of chan": map[string]chan int{"x": nil},
		"bad key": map[float64]int{}, "nil interface key": map[textKey]int{nil: 1},
		"map cycle": selfMap, "slice cycle": selfSlice, "ring": ring, "list": long,
		"pointer cycle": pointers, "any cycle": loop, "typed map cycle": typed,
		"deep RawMessage":   json.RawMessage(strings.Repeat("[", 1_000_000) + strings.Repeat("]", 1_000_000)),
		"RawMessage 1001":   json.RawMessage(strings.Repeat("[", 1001) + strings.Repeat("]", 1001)),
		"Marshaler's error": jsonString("err"), "Marshaler's syntax": jsonString("bad"),
		"bad Number": json.Number("1x"), "bad quoted Number": struct {
			N json.Number `json:",string"`
		}{"x"},
		"year": time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "text error": failing{},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := jsonpack.Append([]byte("kept"), v, 0)
			require.ErrorIs(t, err, jsonpack.ErrUnsupported)
			require.Equal(t, "kept", string(out))
		})
	}
	var me *json.MarshalerError
	_, err := jsonpack.Append(nil, jsonString("err"), 0)
	require.ErrorAs(t, err, &me)
	_, err = jsonpack.Append(nil, failing{}, 0)
	require.ErrorIs(t, err, errFailing)
	var ut *json.UnsupportedTypeError
	_, err = jsonpack.Append(nil, make(chan int), 0)
	require.ErrorAs(t, err, &ut)
}

type textKey interface{ MarshalText() ([]byte, error) }

var errFailing = errors.New("failing")

type failing struct{}

func (failing) MarshalText() ([]byte, error) { return nil, errFailing }

// TestSemantics_Depth ensures that exactly MaxDepth levels pass, each way.
func TestSemantics_Depth(t *testing.T) {
	nested := func(n int) any {
		var v any = 1
		for range n {
			v = []any{v}
		}
		return v
	}
	data := pack(t, nested(jsonpack.MaxDepth))
	var got any
	require.NoError(t, jsonpack.Unmarshal(data, &got))
	_, err := jsonpack.Append(nil, nested(jsonpack.MaxDepth+1), 0)
	require.ErrorIs(t, err, jsonpack.ErrUnsupported)

	text, err := jsonpack.AppendJSON(nil, data)
	require.NoError(t, err)
	again, err := jsonpack.AppendFromJSON(nil, text, 0)
	require.NoError(t, err)
	require.Equal(t, data, again)
	_, err = jsonpack.AppendFromJSON(nil, []byte("["+string(text)+"]"), 0)
	require.ErrorIs(t, err, jsonpack.ErrUnsupported)

	// A RawMessage counts from where it lies.
	half := json.RawMessage(strings.Repeat("[", 500) + strings.Repeat("]", 500))
	wrap := func(n int) any {
		var v any = half
		for range n {
			v = []any{v}
		}
		return v
	}
	pack(t, wrap(500))
	_, err = jsonpack.Append(nil, wrap(501), 0)
	require.ErrorIs(t, err, jsonpack.ErrUnsupported)

	deeper := append([]byte{0x91}, data...)
	require.ErrorIs(t, jsonpack.Scan(deeper), jsonpack.ErrCorrupt)
	require.ErrorIs(t, jsonpack.Unmarshal(deeper, &got), jsonpack.ErrCorrupt)
	var raw json.RawMessage
	require.ErrorIs(t, jsonpack.Unmarshal(deeper, &raw), jsonpack.ErrCorrupt)
	_, err = jsonpack.AppendJSON(nil, deeper)
	require.ErrorIs(t, err, jsonpack.ErrCorrupt)
	type list []list
	var typed list
	require.NoError(t, jsonpack.Unmarshal(pack(t, wrap(400)), &typed))
	require.ErrorIs(t, jsonpack.Unmarshal(append(deeper[:1001:1001], 0x90), &typed), jsonpack.ErrCorrupt)
	type rec map[string]rec
	var maps rec
	bad := []byte(strings.Repeat("\x81\xa1x", 2000) + "\xc0")
	require.ErrorIs(t, jsonpack.Unmarshal(bad, &maps), jsonpack.ErrCorrupt)
	var l List
	require.ErrorIs(t, jsonpack.Unmarshal([]byte(strings.Repeat("\x81\xa4Next", 2000)+"\xc0"), &l), jsonpack.ErrCorrupt)
}

// TestSemantics_Limit ensures that the limit is exact and that what is beyond
// it is not built first.
func TestSemantics_Limit(t *testing.T) {
	text := strings.Repeat("x", 1000)
	for name, v := range map[string]any{
		"string": text, "bytes": []byte(text), "any": []any{text, 1, nil}, "map": map[string]any{"a": text, text: 1},
		"strings": []string{text, text}, "struct": struct{ A, B string }{text, text},
		"raw":  json.RawMessage(`["` + text + `"]`),
		"text": textString(text), "number": json.Number(strings.Repeat("7", 1000)), "ints": make([]int64, 1000),
		"long raw": json.RawMessage("[" + strings.Repeat("1,", 70000) + "1]"), "map string": map[string]string{"a": text},
		"invalid": strings.Repeat("\xff", 100), "typed map": map[int]string{1: text}, "int": 1,
	} {
		t.Run(name, func(t *testing.T) {
			data := pack(t, v)
			out, err := jsonpack.Append([]byte("kept"), v, len(data))
			require.NoError(t, err)
			require.Equal(t, "kept"+string(data), string(out))
			if len(data) == 1 {
				return
			}
			out, err = jsonpack.Append([]byte("kept"), v, len(data)-1)
			require.ErrorIs(t, err, jsonpack.ErrTooLarge)
			require.Equal(t, "kept", string(out))
		})
	}
	huge := make([]string, 1000)
	for i := range huge {
		huge[i] = strings.Repeat("x", 1<<20)
	}
	allocated := testing.AllocsPerRun(1, func() {
		_, err := jsonpack.Append(nil, huge, 2<<20)
		require.ErrorIs(t, err, jsonpack.ErrTooLarge)
	})
	require.Less(t, allocated, 50.0)
	long := strings.Repeat("x", 100<<20)
	for _, v := range []any{long, []byte(long), []any{long}, make([]int64, 10<<20), make([]any, 10<<20),
		json.RawMessage(long[:1] + "1")} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := jsonpack.Append(nil, v, 1000)
		runtime.ReadMemStats(&after)
		require.Error(t, err)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	}
	_, err := jsonpack.Append(nil, json.Number(strings.Repeat("1", 1<<20+1)), 0)
	require.ErrorIs(t, err, jsonpack.ErrTooLarge)
	_, err = jsonpack.AppendFromJSON(nil, []byte(strings.Repeat("1", 1<<20+1)), 0)
	require.ErrorIs(t, err, jsonpack.ErrTooLarge)
}

// TestSemantics_Owned ensures that nothing that is decoded shares memory with
// the stored bytes, nor with what another method got.
func TestSemantics_Owned(t *testing.T) {
	data := pack(t, map[string]any{"a": "text", "b": []byte("bytes"), "k": json.Number("1.50")})
	var v any
	var raws map[string]keeper
	var texts map[jsonKey]keeper
	require.NoError(t, jsonpack.Unmarshal(data, &v))
	require.NoError(t, jsonpack.Unmarshal(data, &raws))
	require.NoError(t, jsonpack.Unmarshal(data, &texts))
	for i := range data {
		data[i] = 0xc1
	}
	var other json.RawMessage
	require.NoError(t, jsonpack.Unmarshal(pack(t, strings.Repeat("z", 500)), &other))
	require.Equal(t, map[string]any{"a": "text", "b": "Ynl0ZXM=", "k": 1.5}, v)
	require.Equal(t, map[string]keeper{"a": {[]byte(`"text"`)}, "b": {[]byte(`"Ynl0ZXM="`)}, "k": {[]byte("1.50")}}, raws)
	require.Len(t, texts, 3)
}

// keeper keeps what UnmarshalJSON gets, which it should not.
type keeper struct{ b []byte }

func (k *keeper) UnmarshalJSON(b []byte) error { k.b = b; return nil }

// TestSemantics_Panic ensures that a method's panic reaches the caller and
// leaves the package fit for use.
func TestSemantics_Panic(t *testing.T) {
	for range 10 {
		require.PanicsWithValue(t, "mine", func() { jsonpack.Append(nil, []any{map[string]any{"a": panicking{}}}, 0) })
		require.PanicsWithValue(t, "mine", func() { jsonpack.Unmarshal([]byte{0x91, 1}, &[]panicking{}) })
		pack(t, map[string]any{"a": 1})
	}
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error)  { panic("mine") }
func (*panicking) UnmarshalJSON(b []byte) error { panic("mine") }

// TestSemantics_Cycles ensures that destinations that point to themselves end.
func TestSemantics_Cycles(t *testing.T) {
	var a, b any
	a, b = &b, &a
	require.Error(t, jsonpack.Unmarshal([]byte{1}, &a))
	var self any
	self = &self
	require.NoError(t, jsonpack.Unmarshal([]byte{1}, &self))
	require.Equal(t, int64(1), self)
	type loop *loop
	var l loop
	l = &l
	require.Error(t, jsonpack.Unmarshal([]byte{1}, l))
}

// TestSemantics_Unreachable ensures an error where encoding/json panics.
func TestSemantics_Unreachable(t *testing.T) {
	type inner struct{ A int }
	var dst struct {
		*inner `json:"x"`
		B      int
	}
	require.ErrorContains(t, jsonpack.Unmarshal(pack(t, map[string]any{"x": map[string]any{"A": 1}, "B": 2}), &dst),
		"unexported")
	require.Equal(t, 2, dst.B)
	require.NoError(t, jsonpack.Unmarshal(pack(t, map[string]any{"x": nil}), &dst))
	type noZero struct{ zeroless }
	_, err := jsonpack.Append(nil, noZero{}, 0)
	require.NoError(t, err)
	_, err = jsonpack.Append(nil, struct {
		zeroless `json:"z,omitzero"`
		B        int
	}{}, 0)
	require.ErrorIs(t, err, jsonpack.ErrUnsupported)
}

type zeroless struct{ A int }

func (zeroless) IsZero() bool { return true }
