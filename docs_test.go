package keepcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// page returns a page of the documentation, with all white space as it would be shown.
func page(t *testing.T, name string) string {
	text, err := os.ReadFile(filepath.FromSlash(name))
	require.NoError(t, err)
	return strings.Join(strings.Fields(string(text)), " ")
}

// Each kind of event is explained, and named in the protocol.
func TestDocs_Events(t *testing.T) {
	n := 0
	for kind := keepcache.EventKind(1); kind != 0 && kind.String() != "unknown"; kind <<= 1 {
		for _, name := range []string{"docs/operating.md", "docs/inspect.md"} {
			require.True(t, strings.Contains(page(t, name), "`"+kind.String()+"`"), "%s does not name %v", name, kind)
		}
		rare := kind&keepcache.RareEvents != 0
		require.Equal(t, rare, strings.Contains(page(t, "docs/operating.md"), "`"+kind.String()+"` (rare)"), kind)
		n++
	}
	require.Equal(t, 17, n)
}

// Each line that the Logger may get is explained.
func TestDocs_LogLines(t *testing.T) {
	operating := page(t, "docs/operating.md")
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	beneath, err := filepath.Glob("internal/*/*.go")
	require.NoError(t, err)
	files = append(files, beneath...)
	lines := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "New" {
					return false // an error
				}
			}
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				text, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				if line, ok := strings.CutPrefix(text, "keepcache: "); ok && line != "" {
					lines[line] = true
				}
			}
			return true
		})
	}
	require.GreaterOrEqual(t, len(lines), 12)
	for line := range lines {
		require.True(t, strings.Contains(operating, "*"+line+"*"), "docs/operating.md does not explain %q", line)
	}
}

// Each test that the documentation names as evidence is there.
func TestDocs_Tests(t *testing.T) {
	there := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w*)\(`).FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	require.NoError(t, err)
	named := 0
	for _, name := range []string{"docs/faults.md", "docs/reliability.md", "docs/file-format.md",
		"docs/command-line-tools.md"} {
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz|Example)\\w*)([*/][^`]*)?`").FindAllStringSubmatch(page(t,
			name), -1) {
			found := there[m[1]]
			if strings.HasPrefix(m[2], "*") {
				for test := range there {
					found = found || strings.HasPrefix(test, m[1])
				}
			}
			require.True(t, found, "%s of %s", m[0], name)
			named++
		}
	}
	require.Greater(t, named, 100)
}
