package keepcache_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/format"
)

// allowedImports are the walls of the house: which packages of this module each one may import, outside of its tests.
// "." is the root. What lies below never names what lies above. bbolt stands here too, because few may know it.
var allowedImports = map[string]string{
	".": "internal/beside internal/contend internal/disk internal/engine internal/errs internal/eventqueue internal/failures " +
		"internal/foreign internal/format internal/ground internal/jsonpack internal/keyrange internal/lockless internal/store internal/trust " +
		"internal/verify",
	"inspect": ". internal/beside internal/display internal/glob internal/jsonpack internal/jsontext internal/rewrite internal/wire",
	"cmd/keepcache": ". internal/beside internal/disk internal/display internal/glob internal/jsontext internal/pagetree internal/preflight " +
		"internal/rewrite internal/store internal/wire",

	"internal/beside":  "",
	"internal/clock":   "internal/format",
	"internal/cost":    "internal/format",
	"internal/contend": "internal/engine internal/ground",
	"internal/disk":    "internal/trust",
	"internal/display": "",
	"internal/engine": "internal/beside internal/clock internal/cost internal/disk internal/errs internal/format internal/ground internal/journal " +
		"internal/keyrange internal/memory internal/recency internal/store internal/verify",
	"internal/errs":       "",
	"internal/eventqueue": "internal/foreign internal/ground",
	"internal/failures":   "internal/format internal/ground",
	"internal/foreign":    "",
	"internal/format":     "internal/errs internal/jsonpack",
	"internal/glob":       "",
	"internal/ground":     "",
	"internal/journal":    "internal/beside internal/disk internal/ground internal/trust",
	"internal/jsonpack":   "",
	"internal/jsontext":   ". internal/jsonpack",
	"internal/keyrange":   "",
	"internal/lockless": "internal/beside internal/cost internal/disk internal/engine internal/errs internal/format internal/journal internal/keyrange internal/memory " +
		"internal/pagetree internal/store internal/verify",
	"internal/memory":    "internal/clock internal/format internal/keyrange",
	"internal/pagetree":  "",
	"internal/preflight": "",
	"internal/recency":   "",
	"internal/rewrite":   ".",
	"internal/salvage":   "",
	"internal/store": "bbolt internal/beside internal/cost internal/disk internal/errs internal/format internal/journal internal/keyrange internal/preflight internal/recency " +
		"internal/salvage internal/trust internal/verify",
	"internal/torture/boltpatch": "bbolt internal/disk",
	"internal/torture/cachetest": ". bbolt",
	"internal/torture/effort":    "",
	"internal/torture/faults":    "internal/disk",
	"internal/torture/mutate":    "",
	"internal/torture/powerloss": "internal/disk",
	"internal/trust":             "",
	"internal/verify":            "internal/cost internal/errs internal/format internal/journal",
	"internal/wire":              ". internal/beside internal/disk internal/display internal/trust",
}

// Each package imports what the list says and nothing else of ours, on every system; and the list has no package that
// is gone, and allows nothing that is not used.
func TestWalls(t *testing.T) {
	const module = "github.com/keepcache/keepcache"
	imports := make(map[string][]string)
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			module, err := filepath.Glob(filepath.Join(name, "go.mod"))
			if name != "." && (len(module) > 0 || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return filepath.SkipDir // also a module of its own
			}
			return err
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		from := path.Dir(filepath.ToSlash(name))
		if imports[from] == nil {
			imports[from] = []string{} // also where it imports nothing
		}
		for _, spec := range file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			switch rest, ours := strings.CutPrefix(to, module); {
			case to == "go.etcd.io/bbolt":
				to = "bbolt"
			case !ours:
				continue
			default:
				to = strings.TrimPrefix(path.Join(".", rest), "/")
			}
			if !slices.Contains(imports[from], to) {
				imports[from] = append(imports[from], to)
			}
		}
		return nil
	}))
	for from, found := range imports {
		allowed, listed := allowedImports[from]
		require.True(t, listed, "%s is not in the list", from)
		for _, to := range found {
			require.Contains(t, strings.Fields(allowed), to, "%s must not import it", from)
		}
	}
	for from, allowed := range allowedImports {
		found, there := imports[from]
		require.True(t, there, "%s is gone", from)
		for _, to := range strings.Fields(allowed) {
			require.Contains(t, found, to, "%s does not import it any more", from)
		}
	}
}

// What the documentation of the package promises of keys, names and lifetimes is what the format has room for.
func TestWalls_Limits(t *testing.T) {
	require.Equal(t, format.MaxKeyBytes, keepcache.MaxKeyBytes)
	require.Equal(t, format.MaxNameBytes, keepcache.MaxNameBytes)
	require.Equal(t, format.Forever, keepcache.NoExpiry)
}
