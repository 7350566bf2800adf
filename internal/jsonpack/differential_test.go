package jsonpack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// canonical makes JSON texts comparable: what Unmarshalers are promised is
// equivalent JSON, not identical bytes.
func canonical(text []byte) string {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "bad:" + string(text)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return "bad:" + err.Error()
	}
	return string(out)
}

// same reports where the value that encoding/json made and ours differ; an
// empty string is no difference. In an any, and only there, our integers may
// stand for its floats.
func same(path string, want, got reflect.Value, inAny bool) string {
	if want.IsValid() != got.IsValid() {
		return fmt.Sprintf("%s: %v, want %v", path, got, want)
	}
	if !want.IsValid() {
		return ""
	}
	if want.Type() != got.Type() {
		if inAny && want.Kind() == reflect.Float64 {
			f := want.Float()
			switch x := got.Interface().(type) {
			case int64:
				if float64(x) == f && !(f == 0 && math.Signbit(f)) {
					return ""
				}
			case uint64:
				if x > math.MaxInt64 && float64(x) == f {
					return ""
				}
			case json.Number:
				if y, err := x.Float64(); err == nil && y == f {
					return ""
				}
			}
		}
		return fmt.Sprintf("%s: %v %v, want %v %v", path, got.Type(), got, want.Type(), want)
	}
	if want.Type() == reflect.TypeFor[json.RawMessage]() {
		if canonical(want.Bytes()) != canonical(got.Bytes()) {
			return fmt.Sprintf("%s: %s, want %s", path, got.Bytes(), want.Bytes())
		}
		return ""
	}
	switch want.Kind() {
	case reflect.Interface:
		return same(path+".(any)", want.Elem(), got.Elem(), true)
	case reflect.Pointer:
		if want.IsNil() != got.IsNil() {
			return fmt.Sprintf("%s: nil is %v, want %v", path, got.IsNil(), want.IsNil())
		}
		if want.IsNil() {
			return ""
		}
		return same("*"+path, want.Elem(), got.Elem(), false)
	case reflect.Struct:
		for i := range want.NumField() {
			if d := same(path+"."+want.Type().Field(i).Name, want.Field(i), got.Field(i), false); d != "" {
				return d
			}
		}
		return ""
	case reflect.Slice:
		if want.IsNil() != got.IsNil() {
			return fmt.Sprintf("%s: nil is %v, want %v", path, got.IsNil(), want.IsNil())
		}
		fallthrough
	case reflect.Array:
		if want.Len() != got.Len() {
			return fmt.Sprintf("%s: length %d, want %d", path, got.Len(), want.Len())
		}
		for i := range want.Len() {
			if d := same(fmt.Sprintf("%s[%d]", path, i), want.Index(i), got.Index(i), false); d != "" {
				return d
			}
		}
		return ""
	case reflect.Map:
		if want.IsNil() != got.IsNil() || want.Len() != got.Len() {
			return fmt.Sprintf("%s: %v, want %v", path, got, want)
		}
		for _, k := range want.MapKeys() {
			if d := same(fmt.Sprintf("%s[%v]", path, k), want.MapIndex(k), got.MapIndex(k), false); d != "" {
				return d
			}
		}
		return ""
	case reflect.Float32, reflect.Float64:
		if math.Float64bits(want.Float()) != math.Float64bits(got.Float()) {
			return fmt.Sprintf("%s: %v, want %v", path, got.Float(), want.Float())
		}
		return ""
	case reflect.Func, reflect.Chan:
		return ""
	}
	if !want.Equal(got) {
		return fmt.Sprintf("%s: %v, want %v", path, got, want)
	}
	return ""
}

// exact reports whether got is what an any should get for want, which was
// decoded with UseNumber.
func exact(want, got any) bool {
	switch w := want.(type) {
	case json.Number:
		switch g := got.(type) {
		case int64:
			return strconv.FormatInt(g, 10) == string(w)
		case uint64:
			return g > math.MaxInt64 && strconv.FormatUint(g, 10) == string(w)
		case json.Number:
			n, ok := new(big.Int).SetString(string(w), 10)
			return g == w && ok && !n.IsInt64() && !n.IsUint64()
		case float64:
			f, err := w.Float64()
			return err == nil && math.Float64bits(f) == math.Float64bits(g)
		}
		return false
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !exact(w[i], g[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k := range w {
			if x, ok := g[k]; !ok || !exact(w[k], x) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(want, got)
}

type counts struct{ cases, marshalErrors, unmarshalErrors int }

// differential makes a value and destinations of data, and compares.
func differential(t testing.TB, data []byte, c *counts) {
	s := &source{data: data}
	c.cases++
	src := reflect.New(s.typ(3))
	s.fill(src.Elem(), 5)
	v := src.Elem().Interface()
	if s.n(3) == 1 {
		v = src.Interface()
	}
	prefix := []byte("prefix")
	var text []byte
	var wantErr error
	if crashes(func() { text, wantErr = json.Marshal(v) }) {
		// A value method on a nil pointer in an interface: the caller's panic.
		require.True(t, crashes(func() { jsonpack.Append(prefix, v, 0) }))
		return
	}
	packed, err := jsonpack.Append(prefix, v, 0)
	if wantErr != nil {
		c.marshalErrors++
		require.Error(t, err, "json: %v", wantErr)
		require.ErrorIs(t, err, jsonpack.ErrUnsupported)
		require.Equal(t, "prefix", string(packed))
		return
	}
	require.NoError(t, err, "%s", text)
	require.Equal(t, "prefix", string(packed[:6]))
	packed = packed[6:]
	require.NoError(t, jsonpack.Scan(packed), "%s %x", text, packed)
	limited, err := jsonpack.Append(nil, v, len(packed))
	require.NoError(t, err)
	require.Equal(t, packed, limited, "not deterministic")
	if len(packed) > 1 {
		_, err = jsonpack.Append(nil, v, len(packed)-1)
		require.ErrorIs(t, err, jsonpack.ErrTooLarge)
	}
	require.NoError(t, msgpackReads(packed), "%x", packed)
	anyRoundTrip(t, text, packed)

	for range 3 {
		dt := src.Type().Elem()
		if s.n(3) > 0 {
			dt = s.typ(3)
		}
		again := *s
		want, got := reflect.New(dt), reflect.New(dt)
		s.fill(want.Elem(), 4)
		again.fill(got.Elem(), 4)
		compareDecode(t, text, packed, want.Interface(), got.Interface(), c)
	}
}

func compareDecode(t testing.TB, text, packed []byte, want, got any, c *counts) {
	var wantErr error
	if crashes(func() { wantErr = json.Unmarshal(text, want) }) {
		jsonpack.Unmarshal(packed, got) // must not
		return
	}
	err := jsonpack.Unmarshal(packed, got)
	if wantErr != nil {
		c.unmarshalErrors++
		require.Error(t, err, "%s, json: %v", text, wantErr)
		if strings.HasPrefix(wantErr.Error(), "json: ") { // others quote the text, which is only equivalent
			require.Equal(t, quotable(wantErr), quotable(err), "%s", text)
		}
		require.IsType(t, wantErr, err)
	} else {
		require.NoError(t, err, "%s into %T", text, got)
	}
	if d := same("dst", reflect.ValueOf(want), reflect.ValueOf(got), false); d != "" {
		require.Fail(t, d, "%s into %T", text, got)
	}
}

// quotable returns the part of an error that does not quote the text, which is
// only equivalent: many characters can be written in several ways.
func quotable(err error) string {
	before, _, _ := strings.Cut(err.Error(), "trying to unmarshal \"")
	return before
}

// crashes reports whether f panics. encoding/json does that when it reads into
// nil pointers to structs that are not exported and are embedded under a name
// of their own.
func crashes(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

// anyRoundTrip proves the promises for an any, for text and for transcoding.
func anyRoundTrip(t testing.TB, text, packed []byte) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var want, got any
	require.NoError(t, dec.Decode(&want))
	if err := jsonpack.Unmarshal(packed, &got); err == nil {
		require.True(t, exact(want, got), "%#v, want %#v", got, want)
	} else {
		require.ErrorContains(t, err, "1E400")
	}
	rendered, err := jsonpack.AppendJSON(nil, packed)
	require.NoError(t, err)
	require.True(t, json.Valid(rendered), "%s", rendered)
	moved, err := jsonpack.AppendFromJSON(nil, text, 0)
	require.NoError(t, err)
	require.NoError(t, jsonpack.Scan(moved))
	var raw json.RawMessage
	require.NoError(t, jsonpack.Unmarshal(moved, &raw))
	require.Equal(t, canonical(text), canonical(raw))
	require.NoError(t, jsonpack.Unmarshal(packed, &raw))
	require.Equal(t, canonical(text), canonical(raw))
}

func msgpackReads(packed []byte) error {
	r := bytes.NewReader(packed)
	dec := msgpack.NewDecoder(r)
	if err := dec.Skip(); err != nil {
		return err
	}
	if r.Len() != 0 {
		return errors.New("msgpack leaves bytes behind")
	}
	return nil
}

// TestDifferential compares with encoding/json over made types and values.
// JSONPACK_CASES sets how many.
func TestDifferential(t *testing.T) {
	n := effort.Of(5000, 20_000)
	if testing.Short() {
		n = 4000
	}
	if s := os.Getenv("JSONPACK_CASES"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	seed := uint64(1)
	if s := os.Getenv("JSONPACK_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	var c counts
	rng := rand.New(rand.NewPCG(seed, 2))
	data := make([]byte, 600)
	for range n {
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		differential(t, data[:rng.IntN(len(data))], &c)
	}
	t.Logf("%d cases, %d refused by both to write, %d decodes refused by both", c.cases, c.marshalErrors,
		c.unmarshalErrors)
}

func FuzzDifferential(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		data := make([]byte, 300)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			return
		}
		differential(t, data, new(counts))
	})
}
