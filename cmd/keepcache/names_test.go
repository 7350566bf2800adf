package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/display"
)

// TestDisplay shows hostile names quoted, and reads them back.
func TestDisplay(t *testing.T) {
	for name, want := range map[string]string{
		"user:123":         "user:123",
		"a b/c*":           "a b/c*",
		"grüße 世界":         "grüße 世界",
		"":                 `""`,
		`"quoted"`:         `"\"quoted\""`,
		" lead":            `" lead"`,
		"tail ":            `"tail "`,
		"a\x00b":           `"a\x00b"`,
		"\xff\xfe":         `"\xff\xfe"`,
		"\x1b[31mred":      `"\x1b[31mred"`,
		"line\nbreak":      `"line\nbreak"`,
		"turn\u202earound": `"turn\u202earound"`,
		"c1\u009b31m":      `"c1\u009b31m"`,
		"\ufffd":           "\ufffd",
	} {
		require.Equal(t, want, display.Name(name))
		back, err := parseDisplay(display.Name(name))
		require.NoError(t, err)
		require.Equal(t, name, back)
	}
	_, err := parseDisplay(`"open`)
	require.Error(t, err)
}

// TestPrintable keeps a message readable and disarms it.
func TestPrintable(t *testing.T) {
	require.Equal(t, `no key "a\\x1b" here`+"\n", printable(`no key "a\\x1b" here`+"\n"))
	require.Equal(t, `a\x1b[31mb\xff\u202e`, printable("a\x1b[31mb\xff\u202e"))
}

// TestShellQuote leaves a plain argument alone.
func TestShellQuote(t *testing.T) {
	require.Equal(t, "/tmp/a-b_1.cache", shellQuote("/tmp/a-b_1.cache"))
	require.Equal(t, `'it'\''s "x"'`, shellQuote(`it's "x"`))
	require.Equal(t, "''", shellQuote(""))
}
