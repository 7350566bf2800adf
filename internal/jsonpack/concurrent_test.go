package jsonpack_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

// TestConcurrent ensures that types that many goroutines meet for the first
// time at once, and that refer to each other, are compiled whole.
func TestConcurrent(t *testing.T) {
	for round := range 30 {
		list := reflect.TypeFor[List]()
		typ := reflect.StructOf([]reflect.StructField{
			{Name: fmt.Sprintf("F%d", round), Type: list},
			{Name: "M", Type: reflect.MapOf(reflect.TypeFor[string](), reflect.ArrayOf(round+1, list))},
		})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				v := reflect.New(typ)
				text, err := json.Marshal(v.Interface())
				require.NoError(t, err)
				data, err := jsonpack.Append(nil, v.Interface(), 0)
				require.NoError(t, err)
				got := reflect.New(typ)
				require.NoError(t, jsonpack.Unmarshal(data, got.Interface()))
				again, err := json.Marshal(got.Interface())
				require.NoError(t, err)
				require.Equal(t, string(text), string(again))
			})
		}
		wg.Wait()
	}
}
