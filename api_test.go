package keepcache_test

import (
	"bytes"
	"flag"
	"go/ast"
	"go/build"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var updateAPI = flag.Bool("update-api", false, "write testdata/api.txt anew")

// publicPackages are the directories of the packages that programs import.
var publicPackages = []string{".", "inspect"}

// exported returns the declarations of a package that its users see, without comments and in no order.
func exported(t *testing.T, dir string) (decls []ast.Decl) {
	pkg, err := build.ImportDir(dir, 0)
	require.NoError(t, err)
	for _, name := range pkg.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.FileExports(file)
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); !ok || f.Recv == nil || ast.IsExported(receiver(f)) {
				decls = append(decls, decl)
			}
		}
	}
	require.NotEmpty(t, decls)
	return decls
}

// receiver returns the name of the type that a method is of.
func receiver(f *ast.FuncDecl) string {
	typ := f.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.Ident:
			return t.Name
		}
	}
}

// declared returns the text of each exported name of a declaration: a function with its signature, a type with its
// exported fields, a constant or variable with its type and value.
func declared(t *testing.T, decl ast.Decl) (texts []string) {
	text := func(before string, node any) {
		var b bytes.Buffer
		config := printer.Config{Mode: printer.UseSpaces | printer.TabIndent, Tabwidth: 4}
		require.NoError(t, config.Fprint(&b, token.NewFileSet(), node))
		lines := strings.FieldsFunc(b.String(), func(r rune) bool { return r == '\n' })
		for i, line := range lines {
			line, _, _ = strings.Cut(line, "// contains filtered") // which the printer says of what is not exported
			line = strings.Join(strings.Fields(line), " ")
			if i > 0 && line != "}" {
				line = "\t" + line
			}
			lines[i] = line
		}
		texts = append(texts, before+strings.Join(lines, "\n"))
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		d.Body = nil
		text("", d)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if _, ok := spec.(*ast.ImportSpec); !ok {
				text(d.Tok.String()+" ", spec)
			}
		}
	}
	return texts
}

// The exported names are those of testdata/api.txt: none changes unnoticed. With -update-api the list is written anew.
func TestAPI(t *testing.T) {
	var b strings.Builder
	for _, dir := range publicPackages {
		var texts []string
		for _, decl := range exported(t, dir) {
			texts = append(texts, declared(t, decl)...)
		}
		slices.Sort(texts)
		b.WriteString("package " + filepath.Join("keepcache", dir) + "\n\n" + strings.Join(texts, "\n") + "\n\n")
	}
	got := strings.TrimSuffix(b.String(), "\n")
	if *updateAPI {
		require.NoError(t, os.WriteFile("testdata/api.txt", []byte(got), 0o666))
	}
	want, err := os.ReadFile("testdata/api.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// Each exported function, method and error is used by an Example, and so is each field of options. Of the types whose
// methods only satisfy interfaces of the standard library, such as error, nothing needs to be called.
func TestAPI_Examples(t *testing.T) {
	for _, dir := range publicPackages {
		shown := make(map[string]bool)
		names, err := filepath.Glob(filepath.Join(dir, "*example*_test.go"))
		require.NoError(t, err)
		for _, name := range names {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			require.NoError(t, err)
			ast.Inspect(file, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					shown[id.Name] = true
				}
				return true
			})
		}
		for _, decl := range exported(t, dir) {
			for _, name := range namesOf(decl) {
				if !shown[name] {
					t.Errorf("no Example of %s uses %s", dir, name)
				}
			}
		}
	}
}

// namesOf returns the names of a declaration that an Example has to use.
func namesOf(decl ast.Decl) (names []string) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if name := d.Name.Name; !slices.Contains([]string{"Error", "Unwrap", "String"}, name) {
			names = append(names, name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, id := range s.Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, id.Name)
					}
				}
			case *ast.TypeSpec:
				fields, ok := s.Type.(*ast.StructType)
				if !ok || !strings.HasSuffix(s.Name.Name, "Options") {
					continue
				}
				for _, field := range fields.Fields.List {
					for _, id := range field.Names {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	return names
}
