package jsonpack_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// TestScan_Refuses ensures that each way to leave the subset is found, and that
// Unmarshal and AppendJSON survive it.
func TestScan_Refuses(t *testing.T) {
	good := pack(t, map[string]any{"a": []any{1, "text", 1.5, nil, true, []byte("b"), json.Number("1.50"),
		uint64(math.MaxUint64)}, "b": map[string]any{}})
	cases := map[string][]byte{
		"empty": {}, "tail": {1, 1}, "reserved code": {0xc1}, "64 GiB array": {0xdd, 0xff, 0xff, 0xff, 0xff},
		"long map": {0xdf, 0xff, 0xff, 0xff, 0xff}, "long string": {0xdb, 0xff, 0xff, 0xff, 0xff},
		"long binary": {0xc6, 0xff, 0xff, 0xff, 0xff},
		"int key":     {0x81, 1, 1}, "nil key": {0x81, 0xc0, 1}, "binary key": {0x81, 0xc4, 1, 'x', 1},
		"key only":       {0x81, 0xa1, 'x'},
		"time extension": {0xd6, 0xff, 0, 0, 0, 0}, "other extension": {0xd4, 'M', '1'}, "empty number": {0xc7, 0, 'N'},
		"letters as number": {0xc7, 1, 'N', 'x'}, "01": {0xd5, 'N', '0', '1'}, "1.": {0xd5, 'N', '1', '.'},
		"number cut": {0xc7, 3, 'N', '1'},
		"NaN":        {0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0}, "Inf": {0xcb, 0xff, 0xf0, 0, 0, 0, 0, 0, 0},
		"NaN32": {0xca, 0x7f, 0xc0, 0, 0}, "Inf32": {0xca, 0x7f, 0x80, 0, 0},
		"two million levels": bytes.Repeat([]byte{0x91}, 2_000_000), "maps": []byte(strings.Repeat("\x81\xa1x", 700_000)),
		"short array": {0x92, 1}, "nested claims": append(bytes.Repeat([]byte("\xde\x40\x00\xa1x"), 900),
			make([]byte, 40_000)...),
		"nested array claims": append(bytes.Repeat([]byte("\xdc\x80\x00"), 900), make([]byte, 40_000)...),
		"huge number":         append(append([]byte{0xc9, 0, 0x10, 0, 1, 'N'}, bytes.Repeat([]byte{'1'}, 1<<20)...), '1'),
	}
	for i := range good {
		cases[strings.Repeat("cut ", 1)+string(rune('0'+i))] = good[:i]
	}
	for _, data := range [][]byte{
		{0xa1, 0xff}, append([]byte{0xd9, 40}, bytes.Repeat([]byte{0xc3}, 40)...),
		{0x81, 0xa9, '1', '2', '3', '4', '5', '6', '7', '8', 0x80, 1}, {0xa9, 0x80, '2', '3', '4', '5', '6', '7', '8', '9'},
	} {
		require.ErrorIs(t, jsonpack.Scan(data), jsonpack.ErrCorrupt) // text that is not UTF-8
		survives(t, data)
	}
	for name, data := range cases {
		require.ErrorIs(t, jsonpack.Scan(data), jsonpack.ErrCorrupt, name)
		survives(t, data)
		var v any
		require.Error(t, jsonpack.Unmarshal(data, &v), name)
		_, err := jsonpack.AppendJSON(nil, data)
		require.ErrorIs(t, err, jsonpack.ErrCorrupt, name)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = jsonpack.Scan(good) }))
}

// survives decodes data, whatever it is, into all sorts of destinations, and
// ensures that neither a panic nor an outsized allocation comes of it.
func survives(t testing.TB, data []byte) {
	scanErr := jsonpack.Scan(data)
	for _, dst := range []any{
		new(any), new(string), new([]byte), new(map[string]any), new([]any), new([]string), new(int), new(float32),
		new(json.Number),
		new(json.RawMessage), new(time.Time), new(Outer), new(List), new(Quoted), new(Tags), new(map[textInt]map[string]int),
		new([3]List),
		new([][]int64), new([]Tags), new(map[int8][]Inner), new(jsonString), new(textString), new(ptrBoth), new(**[]*any),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := jsonpack.Unmarshal(data, dst)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		require.LessOrEqual(t, used, uint64(64<<10+timesOf(reflect.TypeOf(dst).Elem())*len(data)), "%d bytes into %T",
			len(data), dst)
		if scanErr == nil {
			require.NotErrorIs(t, err, jsonpack.ErrCorrupt, "%x into %T", data, dst)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	text, err := jsonpack.AppendJSON(nil, data)
	_ = jsonpack.Scan(data)
	runtime.ReadMemStats(&after)
	require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<10+64*len(data)), "%d bytes as text", len(data))
	if scanErr != nil {
		return
	}
	require.NoError(t, err)
	require.True(t, json.Valid(text))
	var v any
	if err := jsonpack.Unmarshal(data, &v); err == nil {
		again := pack(t, v)
		var w any
		require.NoError(t, jsonpack.Unmarshal(again, &w))
		require.Equal(t, v, w)
	}
}

// timesOf returns how many times the bytes of its encoding the decoding of a value of a type may allocate: 64, and more
// only where the type itself takes more for a byte, whoever decodes it. An element of a slice can be one byte, and
// growing slices take five times their size in all; a map of one entry can be three bytes, and Go makes room for eight;
// what a type's own methods allocate is up to them.
func timesOf(t reflect.Type) int {
	times := 64
	seen := map[reflect.Type]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		if seen[t] {
			return
		}
		seen[t] = true
		for _, own := range []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()} {
			if reflect.PointerTo(t).Implements(own) {
				times = max(times, 1024)
			}
		}
		// bytes of a map; of an entry; for each byte, made room for before the entries are seen
		const mapHeader, mapSlots, ahead = 48 + 8, 8, 32
		ofMap := func(entry uintptr) { times = max(times, int(mapHeader+mapSlots*entry)/3+16+ahead) }
		switch t.Kind() {
		case reflect.Interface:
			ofMap(reflect.TypeFor[string]().Size() + t.Size())
		case reflect.Map:
			ofMap(t.Key().Size() + t.Elem().Size())
			walk(t.Key())
			walk(t.Elem())
		case reflect.Slice:
			times = max(times, 6*int(t.Elem().Size()))
			walk(t.Elem())
		case reflect.Pointer:
			times = max(times, 2*int(t.Elem().Size()))
			walk(t.Elem())
		case reflect.Array:
			walk(t.Elem())
		case reflect.Struct:
			for i := range t.NumField() {
				walk(t.Field(i).Type)
			}
		}
	}
	walk(t)
	return times
}

// TestScan_Costly decodes what takes the most memory for its bytes.
func TestScan_Costly(t *testing.T) {
	require.Equal(t, 64, timesOf(reflect.TypeFor[[]int64]()))
	require.Less(t, timesOf(reflect.TypeFor[any]()), 160)
	require.Equal(t, 96, timesOf(reflect.TypeFor[[]string]()))
	for _, element := range []string{"\x81\xa0\xc0", "\x80", "\x90", "\xc0", "\x91\x90", "\x91\x80",
		"\x81\xa0\x81\xa0\xc0", "\x01", "\xa0", "\xa1x"} {
		for _, n := range []int{1000, effort.Of(10_000, 33_000)} {
			survives(t, append([]byte{0xdc, byte(n >> 8), byte(n)}, strings.Repeat(element, n)...))
		}
	}
}

// TestScan_Msgpack ensures that what the msgpack library writes of the subset
// is accepted and read, in every width.
func TestScan_Msgpack(t *testing.T) {
	encode := func(f func(*msgpack.Encoder) error) []byte {
		var buf bytes.Buffer
		require.NoError(t, f(msgpack.NewEncoder(&buf)))
		return buf.Bytes()
	}
	read := func(data []byte) any {
		require.NoError(t, jsonpack.Scan(data))
		var v any
		require.NoError(t, jsonpack.Unmarshal(data, &v))
		text, err := jsonpack.AppendJSON(nil, data)
		require.NoError(t, err)
		require.True(t, json.Valid(text))
		return v
	}
	for _, n := range ints {
		require.Equal(t, n, read(encode(func(e *msgpack.Encoder) error { return e.EncodeInt(n) })))
		require.Equal(t, n, read(encode(func(e *msgpack.Encoder) error { return e.EncodeInt64(n) })))
		require.Equal(t, int64(int32(n)), read(encode(func(e *msgpack.Encoder) error { return e.EncodeInt32(int32(n)) })))
		require.Equal(t, int64(int16(n)), read(encode(func(e *msgpack.Encoder) error { return e.EncodeInt16(int16(n)) })))
		require.Equal(t, int64(int8(n)), read(encode(func(e *msgpack.Encoder) error { return e.EncodeInt8(int8(n)) })))
		require.Equal(t, int64(uint32(n)), read(encode(func(e *msgpack.Encoder) error { return e.EncodeUint32(uint32(n)) })))
		require.Equal(t, int64(uint16(n)), read(encode(func(e *msgpack.Encoder) error { return e.EncodeUint16(uint16(n)) })))
		require.Equal(t, int64(uint8(n)), read(encode(func(e *msgpack.Encoder) error { return e.EncodeUint8(uint8(n)) })))
		// And ours are the library's own bytes.
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeInt(n) }), pack(t, n))
	}
	require.Equal(t, uint64(math.MaxUint64),
		read(encode(func(e *msgpack.Encoder) error { return e.EncodeUint64(math.MaxUint64) })))
	for _, n := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536, 70000} {
		s := strings.Repeat("x", n)
		require.Equal(t, s, read(encode(func(e *msgpack.Encoder) error { return e.EncodeString(s) })))
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeString(s) }), pack(t, s))
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeBytes([]byte(s)) }), pack(t, []byte(s)))
		read(encode(func(e *msgpack.Encoder) error { return e.EncodeBytes([]byte(s)) }))
		a, m := make([]any, n), map[string]any{}
		for i := range a {
			a[i] = int64(i)
			m[strings.Repeat("k", i%7)+string(rune(0x1000+i))] = a[i]
		}
		require.Equal(t, a, read(encode(func(e *msgpack.Encoder) error { return e.Encode(a) })))
		require.Equal(t, m, read(encode(func(e *msgpack.Encoder) error { return e.EncodeMap(m) })))
		var back []any
		require.NoError(t, msgpack.Unmarshal(pack(t, a), &back))
		require.Len(t, back, n)
		var backMap map[string]any
		require.NoError(t, msgpack.Unmarshal(pack(t, m), &backMap))
		require.Len(t, backMap, len(m))
		// The transcoder's long heads are the same bytes.
		text, err := json.Marshal(m)
		require.NoError(t, err)
		moved, err := jsonpack.AppendFromJSON([]byte("kept"), text, 0)
		require.NoError(t, err)
		require.Equal(t, "kept"+string(pack(t, m)), string(moved))
	}
	require.Equal(t, 1.5, read(encode(func(e *msgpack.Encoder) error { return e.EncodeFloat32(1.5) })))
	require.Equal(t, 1.5, read(encode(func(e *msgpack.Encoder) error { return e.EncodeFloat64(1.5) })))
	require.Equal(t, nil, read(encode(func(e *msgpack.Encoder) error { return e.EncodeNil() })))
	require.Equal(t, true, read(encode(func(e *msgpack.Encoder) error { return e.EncodeBool(true) })))
	for _, lit := range []string{"1e1", "12e1", "1.50", "1.500000", strings.Repeat("1", 16), strings.Repeat("1", 300),
		strings.Repeat("1", 70000)} {
		data := encode(func(e *msgpack.Encoder) error {
			if err := e.EncodeExtHeader('N', len(lit)); err != nil {
				return err
			}
			_, err := e.Writer().Write([]byte(lit))
			return err
		})
		read(data)
		var n json.Number
		require.NoError(t, jsonpack.Unmarshal(data, &n))
		require.Equal(t, lit, string(n))
	}
}

// TestScan_Random proves that arbitrary and mutated bytes do no harm.
func TestScan_Random(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 400 {
		s := &source{data: make([]byte, 200)}
		for i := range s.data {
			s.data[i] = byte(rng.Uint32())
		}
		survives(t, s.data[:rng.IntN(50)])
		v := []any{pick(s, strs), pick(s, ints), pick(s, floats), map[string]any{"A": pick(s, strs), "u": pick(s, ints)},
			[]byte(pick(s, strs))}
		data := pack(t, v)
		for range 1 + rng.IntN(3) {
			data[rng.IntN(len(data))] = byte(rng.Uint32())
		}
		survives(t, data)
	}
}

func FuzzScanDecode(f *testing.F) {
	for _, v := range []any{nil, 1, "x", []byte("x"), 1.5, []any{map[string]any{"A": json.Number("1.50")}}, Tags{},
		Quoted{}} {
		f.Add(pack(f, v))
	}
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte(strings.Repeat("\xde\xff\xff\xa1x", 100)))
	f.Fuzz(func(t *testing.T, data []byte) { survives(t, data) })
}
