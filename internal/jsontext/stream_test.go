package jsontext_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/jsontext"
)

// streamed is what Write and EachLiteral make of a value.
func streamed(t testing.TB, encoded []byte) (text string, places []int) {
	var b bytes.Buffer
	n, err := jsontext.Write(context.Background(), &b, encoded)
	require.NoError(t, err)
	require.NoError(t, jsontext.EachLiteral(context.Background(), encoded, func(place int) error {
		places = append(places, place)
		return nil
	}))
	require.Len(t, places, n)
	return b.String(), places
}

// values are JSON texts with all that a value can have.
var values = []string{
	`null`, `[]`, `{}`, `""`, `1`, `-0`, `-0.0`, `1.0`, `1e2`, `1.50`, `12345678901234567890123`, `[1.0,[2.0],1.00,3]`,
	`[true,false,null]`,
	`{"b":1,"a":{"d":[1.0,{}],"c":"x"},"":[]}`, `{"a":1,"b":2,"a":1.0}`, `"\u001b[31m\u202e\u2028<&>\"\\ä😀"`,
	`{"x":{"b":1.0,"a":2.0},"w":3.0}`,
}

// TestWrite writes a value as taking it apart whole does, literals included, and Text brings both back.
func TestWrite(t *testing.T) {
	db, err := keepcache.Open(filepath.Join(t.TempDir(), "app.cache"), nil)
	require.NoError(t, err)
	defer db.Close()
	b := db.Bucket("b")
	check := func(v any) {
		require.NoError(t, b.Set("k", v, 0))
		e, found, err := b.Stat("k")
		require.NoError(t, err)
		require.True(t, found)
		n, err := jsontext.Of(e)
		require.NoError(t, err)
		var l jsontext.Literals
		want := string(n.Append(nil, &l))
		var encoded jsonpack.Encoded
		require.NoError(t, e.Decode(&encoded))
		got, places := streamed(t, encoded)
		require.Equal(t, want, got)
		require.Equal(t, l.Places, places)
		some, places, whole, err := jsontext.AppendSome(t.Context(), []byte("x"), encoded, len(want))
		require.NoError(t, err)
		require.True(t, whole)
		require.Equal(t, "x"+want, string(some))
		require.Equal(t, l.Places, places)
		if len(want) > 1 {
			some, _, whole, err = jsontext.AppendSome(t.Context(), nil, encoded, len(want)-1)
			require.NoError(t, err)
			require.False(t, whole)
			require.True(t, strings.HasPrefix(want, string(some)))
			require.GreaterOrEqual(t, len(some), len(want)-5)
		}
		back, err := jsonpack.Append(nil, &jsonpack.Text{JSON: []byte(got), Literals: places}, 0)
		require.NoError(t, err)
		again, placesAgain := streamed(t, back)
		require.Equal(t, got, again)
		require.Equal(t, l.Places, placesAgain)
	}
	for _, text := range values {
		check(json.RawMessage(text))
		n, err := jsontext.Parse([]byte(text))
		require.NoError(t, err)
		check(n.Stored([]byte(text), &jsontext.Literals{}))
	}
	check([]byte("\x00\xff"))
	check(bytes.Repeat([]byte("\x00\xff"), 10_000))
	check(strings.Repeat("ä€😀\x01", 5000))
	check(map[string]any{"f": 1.0, "g": float32(2), "h": 1e21, "i": math.Inf(1) > 0, "j": uint64(math.MaxUint64),
		"k": math.Copysign(0, -1)})
	many := map[string]any{}
	for i := range 3000 {
		many[fmt.Sprint(i*7919%3000)] = []any{i, float64(i), fmt.Sprint(i)}
	}
	check(many)
}

// TestWrite_Order sorts what is stored in any order, and gives up before it takes long.
func TestWrite_Order(t *testing.T) {
	nested := strings.Repeat(`{"b":`, 900) + strings.Repeat("[", 1) + strings.Repeat("0,", 200_000) + "0]" +
		strings.Repeat(`,"a":1}`, 900)
	encoded, err := jsonpack.AppendFromJSON(nil, []byte(nested), 0)
	require.NoError(t, err)
	begun := time.Now()
	text, _ := streamed(t, encoded)
	t.Log("nested", time.Since(begun))
	require.True(t, strings.HasPrefix(text, `{"a":1,"b":`), "%.40s", text)
	require.Len(t, text, len(nested))
	require.True(t, json.Valid([]byte(text)))

	var wide strings.Builder
	for i := range 300_000 {
		fmt.Fprintf(&wide, `,"%d":0`, 999_999-i)
	}
	encoded, err = jsonpack.AppendFromJSON(nil, []byte("{"+wide.String()[1:]+"}"), 0)
	require.NoError(t, err)
	text, _ = streamed(t, encoded)
	require.Equal(t, "{"+wide.String()[1:]+"}", text, "as it is stored")
}

// TestWrite_Memory takes the same memory for a value of any size.
func TestWrite_Memory(t *testing.T) {
	for name, v := range map[string]any{"list": make([]int, 8<<20), "text": strings.Repeat("\x01", 8<<20),
		"bytes": make([]byte, 8<<20)} {
		encoded, err := jsonpack.Append(nil, v, 0)
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var n counter
		_, err = jsontext.Write(t.Context(), &n, encoded)
		require.NoError(t, err)
		_, _, whole, err := jsontext.AppendSome(t.Context(), nil, encoded, 4096)
		require.NoError(t, err)
		require.False(t, whole)
		runtime.ReadMemStats(&after)
		require.Greater(t, int(n), 8<<20)
		// A string is turned piece by piece, each of which is garbage at once.
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(24<<20), name)
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// TestWrite_Ends ends with its ctx, and with a writer that fails.
func TestWrite_Ends(t *testing.T) {
	encoded, err := jsonpack.Append(nil, make([]int, 1<<20), 0)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	write := func(ctx context.Context, w io.Writer, encoded []byte) error {
		_, err := jsontext.Write(ctx, w, encoded)
		return err
	}
	require.ErrorIs(t, write(ctx, new(counter), encoded), context.Canceled)
	require.ErrorIs(t, jsontext.EachLiteral(ctx, encoded, nil), context.Canceled)
	require.ErrorIs(t, write(t.Context(), refusing{}, encoded), errRefused)
	for _, bad := range []string{"", "\x91", "\x81\x01\x01", "\xc1", "\x82\xa1b\x01\xa1a", "\xdf\xff\xff\xff\xff"} {
		require.ErrorIs(t, write(t.Context(), new(counter), []byte(bad)), jsonpack.ErrCorrupt, "%q", bad)
	}
}

var errRefused = fmt.Errorf("refused")

type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, errRefused }

// FuzzWrite compares Write with what takes the value apart whole, for whatever Scan accepts.
func FuzzWrite(f *testing.F) {
	for _, text := range values {
		encoded, err := jsonpack.AppendFromJSON(nil, []byte(text), 0)
		require.NoError(f, err)
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var b bytes.Buffer
		_, err := jsontext.Write(t.Context(), &b, encoded)
		if jsonpack.Scan(encoded) != nil {
			return // and it did not fall
		}
		require.NoError(t, err)
		whole, err := jsonpack.AppendJSON(nil, encoded)
		require.NoError(t, err)
		n, err := jsontext.Parse(whole)
		require.NoError(t, err)
		want := n.Append(nil, &jsontext.Literals{})
		got := b.String()
		if !bytes.Contains(want, []byte("-0")) { // which AppendJSON does not tell from an integer
			require.Equal(t, string(want), got)
		}
		text, places, all, err := jsontext.AppendSome(t.Context(), nil, encoded, len(encoded))
		require.NoError(t, err)
		require.Equal(t, len(got) <= len(encoded), all)
		require.True(t, strings.HasPrefix(got, string(text)))
		_, exact := streamed(t, encoded)
		if all {
			require.Equal(t, exact, places)
		}
		back, err := jsonpack.Append(nil, &jsonpack.Text{JSON: []byte(got), Literals: exact}, 0)
		require.NoError(t, err)
		again, _ := streamed(t, back)
		require.Equal(t, got, again)
	})
}
