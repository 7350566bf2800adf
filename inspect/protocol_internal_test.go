package inspect

import (
	goflag "flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/wire"
)

var updateProtocol = goflag.Bool("update-protocol", false, "write testdata/protocol.txt anew")

// messages are what requests and answers of the protocol hold.
var messages = []any{
	wire.Hello{}, wire.Stats{}, wire.Buckets{}, wire.Keys{}, wire.Found{}, wire.Sum{}, wire.Removed{}, wire.Compacted{},
	wire.Report{}, wire.Write{}, wire.Event{}, wire.Failure{},
}

// The protocol is that of testdata/protocol.txt: its paths, and the members of what they take and answer. None changes
// unnoticed, and docs/inspect.md names each path, and each member but those of stats. With -update-protocol the list is
// written anew.
func TestProtocol(t *testing.T) {
	page, err := os.ReadFile("../docs/inspect.md")
	require.NoError(t, err)
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(endpoints)) {
		fmt.Fprintf(&b, "%-4s v1/%s\n", endpoints[path].method, path)
		require.Contains(t, string(page), "`v1/"+path+"`")
	}
	seen := make(map[reflect.Type]bool)
	var add func(typ reflect.Type, documented bool)
	add = func(typ reflect.Type, documented bool) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || !strings.HasSuffix(typ.PkgPath(), "/wire") {
			return
		}
		seen[typ] = true
		documented = documented && typ != reflect.TypeFor[wire.Stats]()
		fmt.Fprintf(&b, "\n%s\n", typ.Name())
		for i := range typ.NumField() {
			field := typ.Field(i)
			if member := field.Tag.Get("json"); member != "" && member != "-" {
				fmt.Fprintf(&b, "\t%s %s\n", member, field.Type)
				name, _, _ := strings.Cut(member, ",")
				if documented && !strings.Contains(string(page), name) {
					t.Errorf("docs/inspect.md does not name %q of %s", name, typ.Name())
				}
			}
		}
		for i := range typ.NumField() {
			add(typ.Field(i).Type, documented)
		}
	}
	for _, m := range messages {
		add(reflect.TypeOf(m), true)
	}
	if *updateProtocol {
		require.NoError(t, os.WriteFile("testdata/protocol.txt", []byte(b.String()), 0o666))
	}
	want, err := os.ReadFile("testdata/protocol.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}
