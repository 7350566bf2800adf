package keepcache_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// roundTrip sets v and returns what it reads back as into an any.
func roundTrip(t *testing.T, b *keepcache.Bucket, v any) any {
	t.Helper()
	mustSet(t, b, "k", v, 0)
	var got any = "untouched"
	found, err := b.Get("k", &got)
	require.NoError(t, err)
	require.True(t, found)
	exists, err := b.Exists("k")
	require.NoError(t, err)
	require.True(t, exists)
	return got
}

// requireAsJSON requires that v, set and read into a T, becomes what encoding/json makes of it, and that
// it fails where encoding/json fails.
func requireAsJSON[T any](t *testing.T, b *keepcache.Bucket, v any, preset T) {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	want, got := preset, preset
	wantErr := json.Unmarshal(text, &want)
	mustSet(t, b, "k", v, 0)
	found, gotErr := b.Get("k", &got)
	require.True(t, found)
	require.Equal(t, wantErr == nil, gotErr == nil, "encoding/json: %v, here: %v", wantErr, gotErr)
	require.Equal(t, want, got)
}

// A null of any kind is stored, found, and nil.
func TestValues_Null(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for _, v := range []any{nil, (*int)(nil), map[string]int(nil), []string(nil), []byte(nil), error(nil),
		json.RawMessage("null")} {
		require.Nil(t, roundTrip(t, b, v), "%T", v)
	}
	pointer := new(int)
	found, err := b.Get("k", &pointer)
	require.NoError(t, err)
	require.True(t, found)
	require.Nil(t, pointer)
}

// Booleans and strings come back as they are; invalid UTF-8 becomes U+FFFD.
func TestValues_BoolString(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	var runes strings.Builder
	for r := rune(0); r <= 0x10FFFF; r += 31 {
		if r < 0xD800 || r > 0xDFFF {
			runes.WriteRune(r)
		}
	}
	for _, v := range []any{true, false, "", "a", "\x00", "a\x00b", "<&>\u2028", runes.String(),
		strings.Repeat("x", 100_000)} {
		require.Equal(t, v, roundTrip(t, b, v))
	}
	require.Equal(t, "a\ufffdb\ufffd", roundTrip(t, b, "a\xffb\xc3"))
	requireAsJSON(t, b, "a\xed\xa0\x80b", "")
}

// Every Go integer is an int64, above MaxInt64 a uint64, exact.
func TestValues_Integers(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for v, want := range map[any]any{
		0: int64(0), -1: int64(-1), int8(-128): int64(-128), int16(-32768): int64(-32768),
		int32(math.MinInt32): int64(math.MinInt32),
		int64(math.MinInt64): int64(math.MinInt64), int64(math.MaxInt64): int64(math.MaxInt64),
		int64(1<<53 + 1): int64(1<<53 + 1),
		uint8(255):       int64(255), uint16(65535): int64(65535), uint32(math.MaxUint32): int64(math.MaxUint32),
		uint(7):               int64(7),
		uint64(math.MaxInt64): int64(math.MaxInt64), uint64(math.MaxInt64 + 1): uint64(math.MaxInt64 + 1),
		uint64(math.MaxUint64): uint64(math.MaxUint64), time.Second: int64(1_000_000_000),
	} {
		require.Equal(t, want, roundTrip(t, b, v), "%T(%v)", v, v)
	}
	for _, v := range []int64{1<<53 + 1, math.MinInt64, math.MaxInt64, 0} {
		requireAsJSON(t, b, v, int64(0))
	}
	requireAsJSON(t, b, uint64(math.MaxUint64), uint64(0))
	requireAsJSON(t, b, 7, 0.5) // an integer reads into a float
}

// Integers beyond 64 bits keep every digit.
func TestValues_BigIntegers(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	digits := "1" + strings.Repeat("0", 40)
	require.Equal(t, json.Number(digits), roundTrip(t, b, json.Number(digits)))
	require.Equal(t, json.Number("-18446744073709551616"), roundTrip(t, b, json.Number("-18446744073709551616")))
	require.Equal(t, int64(5), roundTrip(t, b, json.Number("5")))

	n := new(big.Int).Exp(big.NewInt(10), big.NewInt(40), nil)
	require.Equal(t, json.Number(digits), roundTrip(t, b, n))
	got := new(big.Int)
	found, err := b.Get("k", got)
	require.NoError(t, err)
	require.True(t, found)
	require.Zero(t, n.Cmp(got))
}

// Floats stay floats, bit for bit; a float32 reads into an any as its shortest decimal.
func TestValues_Floats(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for _, v := range []float64{1, 0, -0.5, 5e-324, 1.7e308, math.MaxFloat64, 0.1, 1e21, 123456789012345680,
		math.Copysign(0, -1), 1.0 / 3} {
		got, ok := roundTrip(t, b, v).(float64)
		require.True(t, ok, "%v is no float64 any more", v)
		require.Equal(t, math.Float64bits(v), math.Float64bits(got), "%v", v)
	}
	require.Equal(t, 0.1, roundTrip(t, b, float32(0.1)))
	for _, v := range []float32{0.1, math.MaxFloat32, math.SmallestNonzeroFloat32, 1.0 / 3, -2} {
		mustSet(t, b, "k", v, 0)
		var got float32
		_, err := b.Get("k", &got)
		require.NoError(t, err)
		require.Equal(t, math.Float32bits(v), math.Float32bits(got))
	}
}

// What JSON cannot express is an error, and the old entry stays with its lifetime.
func TestValues_Unsupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		b := open(t, path, nil).Bucket("b")
		type node struct{ Next *node }
		cycle := &node{}
		cycle.Next = cycle
		slice := make([]any, 1)
		slice[0] = slice
		table := map[string]any{}
		table["self"] = table

		mustSet(t, b, "k", "old", time.Minute)
		for name, v := range map[string]any{
			"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1), "float32 NaN": float32(math.NaN()),
			"nested NaN": []any{1, map[string]any{"a": math.NaN()}},
			"chan":       make(chan int), "func": func() {}, "complex": complex(1, 2),
			"nested chan":          struct{ C chan int }{make(chan int)},
			"map with struct keys": map[struct{ A int }]int{{1}: 1}, "failing marshaler": failing{},
			"invalid raw message": json.RawMessage("{"),
			"pointer cycle":       cycle, "slice cycle": slice, "map cycle": table, "too deep": nested(1001),
		} {
			err := b.Set("k", v, time.Hour)
			requireError(t, err, keepcache.ErrUnsupportedValue, "set", path)
			requireValue(t, b, "k", "old")
			requireTTL(t, b, "k", time.Minute)
			added, err := b.Add("absent", v, 0)
			require.ErrorIs(t, err, keepcache.ErrUnsupportedValue, name)
			require.False(t, added)
		}
		require.Equal(t, []string{"k"}, keys(t, b, ""))
	})
}

// A nesting of 1,000 levels is kept.
func TestValues_Deep(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	require.Equal(t, nested(1000), roundTrip(t, b, nested(1000)))
}

// nested returns a value of the given number of levels.
func nested(levels int) any {
	var v any = "core"
	for i := range levels {
		if i%2 == 0 {
			v = []any{v}
		} else {
			v = map[string]any{"a": v}
		}
	}
	return v
}

type failing struct{}

func (failing) MarshalJSON() ([]byte, error) { return nil, fmt.Errorf("no text for this") }

// Arrays and objects come back the same; empty ones stay empty and non-nil.
func TestValues_Containers(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for _, v := range []any{
		[]any{}, map[string]any{}, []any{nil, true, int64(1), 1.5, "s", []any{}, map[string]any{}},
		map[string]any{"": nil, "a\x00": []any{map[string]any{"b": []any{1.0, int64(1)}}}, "<&>": "x"},
	} {
		require.Equal(t, v, roundTrip(t, b, v))
	}
	require.Equal(t, []any{}, roundTrip(t, b, []int{}))
	require.Equal(t, map[string]any{}, roundTrip(t, b, map[int]int{}))
}

// Keys of maps are integers or texts, and become strings.
func TestValues_MapKeys(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	require.Equal(t, map[string]any{"-1": "a", "2": "b"}, roundTrip(t, b, map[int]string{-1: "a", 2: "b"}))
	addr := map[netip.Addr]int{netip.MustParseAddr("::1"): 6, netip.MustParseAddr("127.0.0.1"): 4}
	require.Equal(t, map[string]any{"::1": int64(6), "127.0.0.1": int64(4)}, roundTrip(t, b, addr))
	requireAsJSON(t, b, addr, map[netip.Addr]int(nil))
	requireAsJSON(t, b, map[uint8]bool{200: true}, map[int8]bool(nil)) // does not fit
}

// Bytes read into bytes as they are, and into an any as base64.
func TestValues_Bytes(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	require.Equal(t, base64.StdEncoding.EncodeToString(all), roundTrip(t, b, all))
	requireAsJSON(t, b, all, []byte(nil))
	requireAsJSON(t, b, all, "")
	requireAsJSON(t, b, []byte{}, []byte(nil))
	requireAsJSON(t, b, struct{ B []byte }{all}, struct{ B []byte }{})
}

// SetBytes and GetBytes keep bytes as they are; nil is stored as empty.
func TestValues_SetBytes(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	for _, v := range [][]byte{{}, {0}, []byte("\xff\xfe text"), make([]byte, 1<<20), []byte("\xc0")} {
		require.NoError(t, b.SetBytes("k", v, 0))
		got, found, err := b.GetBytes("k")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, v, got)
	}
	require.NoError(t, b.SetBytes("k", nil, 0))
	got, found, err := b.GetBytes("k")
	require.NoError(t, err)
	require.True(t, found)
	require.NotNil(t, got)
	require.Empty(t, got)
	requireValue(t, b, "k", "")

	mustSet(t, b, "k", map[string]int{"a": 1}, 0)
	_, found, err = b.GetBytes("k")
	require.Error(t, err, "an object is no bytes")
	require.True(t, found)
}

type address struct {
	Street string `json:"street,omitempty"`
	Zip    string
}

type person struct {
	address
	Name    string    `json:"name"`
	Age     int       `json:",string"`
	Secret  string    `json:"-"`
	Dash    string    `json:"-,"`
	Born    time.Time `json:"born,omitzero"`
	Zip     int       // shadows address.Zip
	Pointer *address
	private string
}

// Structs follow their json tags: omitempty, omitzero, string, "-", "-,", embedding, shadowing, any case.
func TestValues_Structs(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	p := person{address: address{"Main St", "lost"}, Name: "ada", Age: 36, Secret: "s", Dash: "d", Zip: 7, private: "p"}
	require.Equal(t, map[string]any{
		"street": "Main St", "name": "ada", "Age": "36", "-": "d", "Zip": int64(7), "Pointer": nil,
	}, roundTrip(t, b, p))
	requireAsJSON(t, b, p, person{Secret: "kept", Born: time.Unix(5, 0).UTC()})
	requireAsJSON(t, b, &p, person{Pointer: &address{Zip: "overwritten"}})
	requireAsJSON(t, b, map[string]any{"NAME": "ada", "aGe": "4", "street": "x"}, person{})
	requireAsJSON(t, b, map[string]any{"name": 7, "Zip": 7}, person{}) // the rest is filled nevertheless
}

// upper marshals to upper case text.
type upper string

func (u upper) MarshalText() ([]byte, error) { return []byte(strings.ToUpper(string(u))), nil }

// versioned marshals itself.
type versioned struct{ n int }

func (v versioned) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"v":%d, "f":1.0}`, v.n), nil
}
func (v *versioned) UnmarshalJSON(text []byte) error {
	var from struct{ V int }
	err := json.Unmarshal(text, &from)
	v.n = from.V
	return err
}

// Marshalers are stored as what they marshal to; a time keeps its zone and its nanoseconds.
func TestValues_Marshalers(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	require.Equal(t, "ABC", roundTrip(t, b, upper("abc")))
	require.Equal(t, map[string]any{"v": int64(7), "f": 1.0}, roundTrip(t, b, versioned{7}))
	requireAsJSON(t, b, versioned{7}, versioned{})
	requireAsJSON(t, b, []versioned{{1}, {2}}, []versioned(nil))

	at := time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.FixedZone("", 5*3600+1800))
	require.Equal(t, "2024-02-29T23:59:59.123456789+05:30", roundTrip(t, b, at))
	var got time.Time
	_, err := b.Get("k", &got)
	require.NoError(t, err)
	require.True(t, at.Equal(got))
	_, offset := got.Zone()
	require.Equal(t, 5*3600+1800, offset)

	raw := json.RawMessage(` {"b": [1, 2.0, 1e2, 10000000000000000000000], "a":"<\u0041>"} `)
	mustSet(t, b, "k", raw, 0)
	var back json.RawMessage
	_, err = b.Get("k", &back)
	require.NoError(t, err)
	require.JSONEq(t, string(raw), string(back))
}

// A number that does not fit its destination is an error, and leaves what encoding/json leaves.
func TestValues_DoesNotFit(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	requireAsJSON(t, b, 300, int8(5))
	requireAsJSON(t, b, -1, uint(5))
	requireAsJSON(t, b, 1.5, 5)
	requireAsJSON(t, b, 1.0, 5)
	requireAsJSON(t, b, 1e300, float32(5))
	requireAsJSON(t, b, "text", 5)
	requireAsJSON(t, b, []int{1, 300, 3}, []int8{9})
	requireAsJSON(t, b, []int{1, 2, 3}, [2]int{})
	requireAsJSON(t, b, []int{1}, [2]int{8, 8})
	requireAsJSON(t, b, map[string]any{"a": 1, "b": "x"}, map[string]int{"c": 3})
	requireAsJSON(t, b, nil, 5)
}

// Get into what is no pointer is an error, never a panic.
func TestValues_BadDestination(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	mustSet(t, b, "k", 1, 0)
	for _, dst := range []any{nil, 5, "s", (*int)(nil), map[string]int{}} {
		_, err := b.Get("k", dst)
		require.Error(t, err, "%T", dst)
	}
}

// A value beyond MaxValueBytes is refused, the old entry stays; -1 lifts the limit.
func TestValues_TooLarge(t *testing.T) {
	path := newPath(t)
	db := open(t, path, &keepcache.Options{MaxValueBytes: 1000})
	b := db.Bucket("b")
	mustSet(t, b, "k", strings.Repeat("x", 900), time.Hour)
	before, _, err := b.Stat("k")
	require.NoError(t, err)
	for _, v := range []any{strings.Repeat("x", 1001), make([]byte, 1001), make([]bool, 1001),
		map[string]any{"a": strings.Repeat("x", 1001)}} {
		requireError(t, b.Set("k", v, 0), keepcache.ErrTooLarge, "set", path)
	}
	requireError(t, b.SetBytes("k", make([]byte, 1001), 0), keepcache.ErrTooLarge, "set", path)
	_, err = b.Add("other", make([]byte, 1001), 0)
	requireError(t, err, keepcache.ErrTooLarge, "add", path)
	after, _, err := b.Stat("k")
	require.NoError(t, err)
	require.Equal(t, before, after)

	db = reopen(t, db, path, &keepcache.Options{MaxValueBytes: -1})
	mustSet(t, db.Bucket("b"), "k", make([]byte, 5<<20), 0)
	got, found, err := db.Bucket("b").GetBytes("k")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, make([]byte, 5<<20), got)
}

// What Get returns is the caller's own, and what Set was given stays the caller's.
func TestValues_CallersOwn(t *testing.T) {
	b := newDB(t, nil).Bucket("b")
	given := []byte("immutable")
	require.NoError(t, b.SetBytes("k", given, 0))
	copy(given, "XXXXXXXXX")
	for range 2 {
		got, _, err := b.GetBytes("k")
		require.NoError(t, err)
		require.Equal(t, "immutable", string(got))
		copy(got, "YYYYYYYYY")
		_ = append(got, "ZZZ"...)

		var raw json.RawMessage
		_, err = b.Get("k", &raw)
		require.NoError(t, err)
		clear(raw)
	}
	entry, _, err := b.Stat("k")
	require.NoError(t, err)
	mustSet(t, b, "k", "later", 0)
	var old []byte
	require.NoError(t, entry.Decode(&old))
	require.Equal(t, "immutable", string(old), "an Entry does not change with the cache")
}

// The values of the rule survive a reopen.
func TestValues_Reopen(t *testing.T) {
	path := newPath(t)
	db := open(t, path, nil)
	want := map[string]any{
		"null": nil, "bool": true, "string": "s\x00", "int": int64(1<<53 + 1), "uint": uint64(math.MaxUint64),
		"big":   json.Number("1" + strings.Repeat("0", 40)),
		"float": 1.0, "array": []any{int64(1), "a"}, "object": map[string]any{"a": map[string]any{}},
	}
	for key, v := range want {
		require.NoError(t, db.Set(key, v, 0))
	}
	db = reopen(t, db, path, nil)
	for key, v := range want {
		requireValue(t, db.Bucket("default"), key, v)
	}
}
