package glob_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/glob"
)

// Patterns match whole keys, and say with what a match begins.
func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, prefix string
		yes, no         []string
	}{
		{"", "", []string{""}, []string{"a"}},
		{"abc", "abc", []string{"abc"}, []string{"ab", "abcd", "xbc"}},
		{"*", "", []string{"", "a", "a/b\n"}, nil},
		{"user:*:name", "user:", []string{"user::name", "user:1:name", "user:a:name:name"},
			[]string{"user:1:names", "user:name"}},
		{"a?c", "a", []string{"abc", "aüc", "a\xffc"}, []string{"ac", "abbc"}},
		{"[a-cx]*", "", []string{"a", "cat", "x-ray"}, []string{"", "d"}},
		{"[^0-9]", "", []string{"a"}, []string{"5", "aa", ""}},
		{`\*\[`, "*[", []string{"*["}, []string{"a["}},
		{"*a*b*", "", []string{"ab", "xaxbx", "bab"}, []string{"ba", "b"}},
		{"a-b]", "a-b]", []string{"a-b]"}, nil},
	} {
		g, err := glob.Parse(c.pattern)
		require.NoError(t, err, c.pattern)
		require.Equal(t, c.prefix, g.Prefix, c.pattern)
		for _, key := range c.yes {
			require.True(t, g.Match(key), "%q %q", c.pattern, key)
		}
		for _, key := range c.no {
			require.False(t, g.Match(key), "%q %q", c.pattern, key)
		}
	}
	for _, bad := range []string{"[", "[]", "[z-a]", `\`, "\xff"} {
		_, err := glob.Parse(bad)
		require.Error(t, err, bad)
	}
}
