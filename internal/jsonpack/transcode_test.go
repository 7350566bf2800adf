package jsonpack_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

var texts = append([]string{
	``, ` `, `nul`, `nulll`, `true false`, `"\x"`, `"\u12"`, `"\u12G4"`, "\"\x1f\"", `"a`, `"\`, `"\"`, `[`, `]`, `[1`,
	`[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{"a":1,}`,
	`{a:1}`, `{"a":1 "b":2}`, `[1 2]`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `01`, `-01`, `0x1`, `1_0`, `Infinity`, `NaN`,
	`[}`, `{]`, `{"a":1]`, `[1}`, "\ufeff1", `'a'`, `"\'"`,
	` [ 1 , 2.50 , -0 , -0.0 , 1e2 , "x" , { "b" : 1 , "a" : null } , true , false ] `, `"\ud83d\ude00"`, `"\ud83d"`,
	`"\ude00\ud83d"`, `"\ud83dx"`, `"\ud83d\n"`, `"\ud83d\u0041"`,
	"\"\xff\xc3\"", `"\"\\\/\b\f\n\r\t\u0000"`, `{"":{"":[]}}`, `[[],{},[[]],[{}]]`, `{"a":1,"a":2}`,
	`18446744073709551615`, `18446744073709551616`, `-9223372036854775808`,
	`1e400`, `-1e-400`, `123456789012345678901234567890`, "\t\r\n1\t\r\n", `[1]x`, `1 1`,
	`{"a":{"b":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,{"c":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}]}}`,
	"[" + strings.Repeat("1,", 16) + "1]", "[" + strings.Repeat("[1],", 70000) + "{}]",
	"{\"x\":[" + strings.Repeat("[],", 20) + "1]}", "\"a\\", "\"\\u", "{\"a\"", "{\"a\":", "{\"a\":1", "[1,", "{\"a\":1,",
}, raws...)

// transcodes compares with encoding/json over one text.
func transcodes(t testing.TB, text []byte) {
	data, err := jsonpack.AppendFromJSON([]byte("kept"), text, 0)
	if !json.Valid(text) {
		require.ErrorIs(t, err, jsonpack.ErrUnsupported, "%q", text)
		var syntax *json.SyntaxError
		if !strings.Contains(err.Error(), "deeper") {
			require.ErrorAs(t, err, &syntax, "%q: %v", text, err)
		}
		require.Equal(t, "kept", string(data))
		return
	}
	if err != nil && strings.Contains(err.Error(), "deeper") {
		return // encoding/json allows more
	}
	require.NoError(t, err, "%q", text)
	require.Equal(t, "kept", string(data[:4]))
	data = data[4:]
	require.NoError(t, jsonpack.Scan(data), "%q", text)
	_, err = jsonpack.AppendFromJSON(nil, text, len(data))
	require.NoError(t, err)
	if len(data) > 1 {
		_, err = jsonpack.AppendFromJSON(nil, text, len(data)-1)
		require.ErrorIs(t, err, jsonpack.ErrTooLarge)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var want, got any
	require.NoError(t, dec.Decode(&want))
	if err := jsonpack.Unmarshal(data, &got); err == nil {
		require.True(t, exact(want, got), "%q: %#v, want %#v", text, got, want)
	} else {
		var float any
		require.EqualError(t, json.Unmarshal(text, &float), err.Error()) // a float beyond float64
	}
	out, err := jsonpack.AppendJSON([]byte("kept"), data)
	require.NoError(t, err)
	require.Equal(t, "kept", string(out[:4]))
	again, err := jsonpack.AppendFromJSON(nil, out[4:], 0)
	require.NoError(t, err)
	twice, err := jsonpack.AppendJSON(nil, again)
	require.NoError(t, err)
	require.Equal(t, string(out[4:]), string(twice))
	require.Equal(t, canonical(text), canonical(out[4:]), "%q", text)
}

// TestTranscode ensures that syntax and values are those of encoding/json.
func TestTranscode(t *testing.T) {
	for _, text := range texts {
		transcodes(t, []byte(text))
	}
}

// TestTranscode_Random mutates texts and compares.
func TestTranscode_Random(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	alphabet := "[]{}\",:0123456789.-+eEtrufalsn\\/ u\xff\xed\x00\n"
	for range 60000 {
		text := []byte(texts[rng.IntN(len(texts))])
		if len(text) == 0 || len(text) > 1000 {
			continue
		}
		for range 1 + rng.IntN(3) {
			i := rng.IntN(len(text))
			c := alphabet[rng.IntN(len(alphabet))]
			switch rng.IntN(3) {
			case 0:
				text[i] = c
			case 1:
				text = append(text[:i], append([]byte{c}, text[i:]...)...)
			default:
				text = append(text[:i], text[min(i+1, len(text)):]...)
			}
			if len(text) == 0 {
				break
			}
		}
		transcodes(t, text)
	}
}

func FuzzTranscode(f *testing.F) {
	for _, text := range texts {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) { transcodes(t, text) })
}

// TestAppendJSON ensures order, escaping and floats that look like floats.
func TestAppendJSON(t *testing.T) {
	v := struct {
		Z, A float64
		M    map[string]any
		B    []byte
		E    struct{}
		F    float32
		N    float64
		K    float64 `json:"<k>"`
	}{1, -2.5, map[string]any{"b": 1, "a": []any{}, "": "<&>\u2028\n\xff"}, []byte{1}, struct{}{}, 3,
		math.Copysign(0, -1), 1e21}
	out, err := jsonpack.AppendJSON([]byte("x"), pack(t, v))
	require.NoError(t, err)
	require.Equal(t, `x{"<k>":1e+21,"A":-2.5,"B":"AQ==","E":{},"F":3.0,"M":{"":"<&>\u2028\n`+"\ufffd"+`","a":[],"b":1},"N":-0,"Z":1.0}`, string(out))

	// What an Unmarshaler gets is json.Marshal's own text.
	var raw json.RawMessage
	require.NoError(t, jsonpack.Unmarshal(pack(t, v), &raw))
	want, err := json.Marshal(v)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(want), `\ufffd`, "\ufffd"), string(raw))
}
