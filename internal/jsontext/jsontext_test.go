package jsontext_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/jsontext"
)

// TestParse reads JSON as encoding/json does, and writes it sorted and safe to show.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		` {"b" : [ ] , "a":{ } }`:              `{"a":{},"b":[]}`,
		`"a\u0041\n\"\\\/\ud83d\ude00<&>"`:     `"aA\n\"\\/😀<&>"`,
		`"\u001b[31m\u009b\u202e\u2028\u007f"`: `"\u001b[31m\u009b\u202e\u2028\u007f"`,
		`[1.0,1e2,-0,-0.0,1.50,1E+400]`:        `[1.0,1e2,-0,-0.0,1.50,1E+400]`,
		`{"a":1,"b":2,"a":3}`:                  `{"a":1,"a":3,"b":2}`,
		` null `:                               `null`,
		"[\n]":                                 `[]`,
		`[[],[[]],{"":[true,false]}]`:          `[[],[[]],{"":[true,false]}]`,
	} {
		n, err := jsontext.Parse([]byte(text))
		require.NoError(t, err, text)
		got := n.Append(nil, &jsontext.Literals{})
		require.Equal(t, want, string(got))
		require.True(t, json.Valid(got))
	}
	for _, text := range []string{"", "hello", "{", "[1,]", `"\x"`, "01", "1 2", "\xff", "\"\xff\"", "nul",
		strings.Repeat("[", 20000)} {
		_, err := jsontext.Parse([]byte(text))
		require.Error(t, err, "%.20q", text)
	}
}

// FuzzParse compares the parser with encoding/json.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.0,"x\u0000",null],"a":{}}`, `[]`, `-0.0`, `"\ud800"`, "1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := jsontext.Parse(text)
		var want any
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		if err != nil {
			return
		}
		require.NoError(t, d.Decode(&want))
		var got any
		d = json.NewDecoder(strings.NewReader(string(n.Append(nil, &jsontext.Literals{}))))
		d.UseNumber()
		require.NoError(t, d.Decode(&got))
		require.Equal(t, want, got)
		_ = n.Stored(text, &jsontext.Literals{})
	})
}

// TestMark gives the numbers that were stored as literals their mark back, so that they come out as they went in.
func TestMark(t *testing.T) {
	n, err := jsontext.Parse([]byte(`{"a":[1.0,2.0],"b":3,"c":4.0}`))
	require.NoError(t, err)
	n.Mark([]int{3, 0})
	var l jsontext.Literals
	n.Append(nil, &l)
	require.Equal(t, []int{0, 3}, l.Places)
	require.Equal(t, map[string]any{
		"a": []any{json.Number("1.0"), 2.0}, "b": json.Number("3"), "c": json.Number("4.0"),
	}, n.Stored(nil, &jsontext.Literals{Places: []int{3, 0}}))
}
