package keepcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// optionDocs are the comments of the fields of a struct in options.go.
func optionDocs(t *testing.T, name string) map[string]string {
	docs := map[string]string{}
	file, err := parser.ParseFile(token.NewFileSet(), "options.go", nil, parser.ParseComments)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name {
			return true
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			for _, n := range f.Names {
				docs[n.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
		}
		return false
	})
	require.NotEmpty(t, docs)
	return docs
}

var (
	sayLeast   = regexp.MustCompile(`At least ([0-9]+ [KMG]iB)`)
	sayMost    = regexp.MustCompile(`At most ([0-9]+ [KMG]iB)`)
	sayDefault = regexp.MustCompile(`Default: ([^.]+)\.`)
	sayOff     = regexp.MustCompile(`(^|[^0-9])-1([^0-9]|$)`)
)

// amount reads an amount as the comments name it.
func amount(t *testing.T, text string) int64 {
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	require.NoError(t, err, text)
	switch unit {
	case "":
		return n
	case "KiB":
		return n << 10
	case "MiB":
		return n << 20
	case "GiB":
		return n << 30
	}
	d, err := time.ParseDuration(number + unit)
	require.NoError(t, err, text)
	return int64(d)
}

// What the comment of each field that is a number says is what Open does: the least and the largest value, -1, 0, what
// is below these, and the extremes. Where a comment names no bound there is none but that of its type.
func TestOptions_Documented(t *testing.T) {
	budgets := map[string]func(keepcache.BudgetStats) int64{
		"MaxBytes":     func(b keepcache.BudgetStats) int64 { return b.Bytes },
		"MemoryBytes":  func(b keepcache.BudgetStats) int64 { return b.MemoryBytes },
		"JournalBytes": func(b keepcache.BudgetStats) int64 { return b.JournalBytes },
	}
	path := newPath(t)
	check := func(docs map[string]string, field reflect.StructField, set func(n int64) *keepcache.Options) {
		if k := field.Type.Kind(); k != reflect.Int && k != reflect.Int64 ||
			field.Type == reflect.TypeFor[keepcache.SyncMode]() ||
			field.Type == reflect.TypeFor[keepcache.OnCorruption]() {
			return
		}
		doc := docs[field.Name]
		require.Regexp(t, sayDefault, doc, field.Name)
		require.Regexp(t, sayOff, doc, "%s does not say what -1 is", field.Name)
		least, most := int64(1), int64(math.MaxInt64)
		if field.Type.Kind() == reflect.Int {
			most = math.MaxInt
		}
		if m := sayLeast.FindStringSubmatch(doc); m != nil {
			least = amount(t, m[1])
		}
		if m := sayMost.FindStringSubmatch(doc); m != nil {
			most = amount(t, m[1])
		}
		tried := map[int64]bool{0: true, -1: true, least: true, most: true, -2: false, math.MinInt: false}
		if least > 1 {
			tried[least-1], tried[1] = false, false
		}
		if most < math.MaxInt {
			tried[most+1], tried[math.MaxInt] = false, false
		}
		for n, taken := range tried {
			db, err := keepcache.Open(path, set(n))
			if !taken {
				require.ErrorContains(t, err, "option ", "%s of %d is taken", field.Name, n)
				require.ErrorContains(t, err, field.Name)
				continue
			}
			require.NoError(t, err, "%s of %d", field.Name, n)
			if of := budgets[field.Name]; of != nil && set(n).Buckets == nil {
				switch got := of(db.Stats().Budgets); n {
				case 0:
					require.Equal(t, amount(t, sayDefault.FindStringSubmatch(doc)[1]), got, field.Name)
				case -1, math.MaxInt64:
					require.EqualValues(t, -1, got, field.Name)
				default:
					require.Equal(t, n, got, field.Name)
				}
			}
			require.NoError(t, db.Close())
		}
	}
	docs := optionDocs(t, "Options")
	for i, typ := 0, reflect.TypeFor[keepcache.Options](); i < typ.NumField(); i++ {
		check(docs, typ.Field(i), func(n int64) *keepcache.Options {
			var o keepcache.Options
			reflect.ValueOf(&o).Elem().Field(i).SetInt(n)
			return &o
		})
	}
	docs = optionDocs(t, "BucketOptions")
	for i, typ := 0, reflect.TypeFor[keepcache.BucketOptions](); i < typ.NumField(); i++ {
		check(docs, typ.Field(i), func(n int64) *keepcache.Options {
			var b keepcache.BucketOptions
			reflect.ValueOf(&b).Elem().Field(i).SetInt(n)
			return &keepcache.Options{Buckets: map[string]keepcache.BucketOptions{"b": b}}
		})
	}
}

// The defaults that no statistics show are those that the comments name: what the code has is read out of it.
func TestOptions_Defaults(t *testing.T) {
	docs := optionDocs(t, "Options")
	file, err := parser.ParseFile(token.NewFileSet(), "options.go", nil, 0)
	require.NoError(t, err)
	consts := map[string]int64{}
	units := map[string]int64{"Second": int64(time.Second), "Millisecond": int64(time.Millisecond)}
	var value func(ast.Expr) int64
	value = func(e ast.Expr) int64 {
		switch e := e.(type) {
		case *ast.BasicLit:
			n, err := strconv.ParseInt(e.Value, 0, 64)
			require.NoError(t, err)
			return n
		case *ast.SelectorExpr:
			require.Contains(t, units, e.Sel.Name)
			return units[e.Sel.Name]
		case *ast.BinaryExpr:
			if e.Op == token.SHL {
				return value(e.X) << value(e.Y)
			}
			return value(e.X) * value(e.Y)
		}
		require.Fail(t, "unknown constant")
		return 0
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 && strings.HasPrefix(spec.Names[0].Name, "default") {
			consts[strings.TrimPrefix(spec.Names[0].Name, "default")] = value(spec.Values[0])
		}
		return true
	})
	require.Len(t, consts, 10)
	for name, n := range consts {
		require.Contains(t, docs, name)
		require.Equal(t, n, amount(t, sayDefault.FindStringSubmatch(docs[name])[1]), name)
	}
}
