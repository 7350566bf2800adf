package keepcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const architecture = "docs/architecture.md"

// The diagram of the packages has all imports between those that it shows, and no others. The page names the packages
// that it leaves out.
func TestWalls_Diagram(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash(architecture))
	require.NoError(t, err)
	diagrams := regexp.MustCompile("(?s)```mermaid\n(.*?)```").FindAllSubmatch(text, -1)
	require.Len(t, diagrams, 1)
	lines := strings.Split(strings.TrimSpace(string(diagrams[0][1])), "\n")
	require.Equal(t, "flowchart TD", lines[0])

	room := regexp.MustCompile(`^(\w+)\["([^"<]+)(?:<br/>[^"]*)?"\]$`)
	arrow := regexp.MustCompile(`^(\w+) --> (\w+(?: & \w+)*)$`)
	shown := map[string]string{} // packages by the names that the diagram gives them
	drawn := map[string][]string{}
	for _, line := range lines[1:] {
		line = strings.TrimSpace(line)
		if m := room.FindStringSubmatch(line); m != nil {
			if m[2] == "keepcache" {
				m[2] = "."
			}
			shown[m[1]] = m[2]
		} else if m := arrow.FindStringSubmatch(line); m != nil {
			require.Contains(t, allowedImports, shown[m[1]], line)
			for to := range strings.SplitSeq(m[2], " & ") {
				require.Contains(t, shown, to)
				drawn[shown[m[1]]] = append(drawn[shown[m[1]]], shown[to])
			}
		} else {
			require.Empty(t, line, "neither a room nor an arrow")
		}
	}
	isShown := make(map[string]bool)
	for _, name := range shown {
		_, listed := allowedImports[name]
		require.True(t, listed || name == "bbolt", "%s is no package", name)
		isShown[name] = true
	}
	for from, allowed := range allowedImports {
		if !isShown[from] {
			require.True(t, strings.Contains(string(text), "`"+from+"`"), "%s is neither drawn nor named", from)
			continue
		}
		between := slices.DeleteFunc(strings.Fields(allowed), func(to string) bool { return !isShown[to] })
		require.ElementsMatch(t, between, drawn[from], "arrows from %s", from)
	}
}

// Each name of code that the page has is there, and where it says in which file, in that one.
func TestDocs_Architecture(t *testing.T) {
	there := map[string]bool{}            // names, of methods and fields also with their type or the package before them
	files := map[string]map[string]bool{} // the same, by file
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		name = filepath.ToSlash(name)
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		own := declaredIn(file, path.Base(path.Dir(name)))
		files[name] = own
		for n := range own {
			there[n] = true
		}
		return nil
	}))
	text := page(t, architecture)
	located := regexp.MustCompile("`([A-Za-z.]+)` \\(`([^` ]+\\.go)`\\)").FindAllStringSubmatch(text, -1)
	require.Greater(t, len(located), 40)
	for _, m := range located {
		require.True(t, files[m[2]][m[1]], "%s is not in %s", m[1], m[2])
	}
	text = regexp.MustCompile(`\| (From|bbolt|badger|otter|go-redis|database/sql)(, badger)?(, go-redis)? \|`).ReplaceAllString(text, "\n$0")
	text = regexp.MustCompile(`\|[^|]*\n`).ReplaceAllString(text, "") // names of others, in the table of what users know
	for _, m := range regexp.MustCompile("`([^` ]+)`").FindAllStringSubmatch(text, -1) {
		if slices.Contains([]string{"found", "uint64", "int64", "int", "errors.Is", "time.Duration", "time.Time"}, m[1]) {
			continue // names of Go
		}
		if _, err := os.Stat(filepath.FromSlash(m[1])); err != nil {
			require.True(t, there[m[1]], "%s is neither a name nor a file", m[1])
		}
	}
}

// declaredIn returns what a file of a package declares: Name, pkg.Name, and for what a type has Type.Name.
func declaredIn(file *ast.File, pkg string) map[string]bool {
	names := map[string]bool{}
	add := func(of string, all ...*ast.Ident) {
		for _, n := range all {
			names[n.Name], names[of+"."+n.Name] = true, true
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			of := pkg
			if n.Recv != nil {
				ast.Inspect(n.Recv.List[0].Type, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok && of == pkg {
						of = id.Name
					}
					return true
				})
			}
			add(of, n.Name)
			return false
		case *ast.TypeSpec:
			add(pkg, n.Name)
			var fields *ast.FieldList
			switch t := n.Type.(type) {
			case *ast.StructType:
				fields = t.Fields
			case *ast.InterfaceType:
				fields = t.Methods
			default:
				return false
			}
			for _, f := range fields.List {
				add(n.Name.Name, f.Names...)
			}
			return false
		case *ast.ValueSpec:
			add(pkg, n.Names...)
			return false
		}
		return true
	})
	return names
}
