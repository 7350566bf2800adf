package keepcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
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
			require.Contains(t, page(t, name), "`"+kind.String()+"`", name)
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
		require.Contains(t, operating, "*"+line+"*")
	}
}
