// Package effort says how much tests do: little where somebody waits for them, and all where they are to prove a
// change. Only counts depend on it, never what is tried or what is required.
package effort

import "os"

// Full asks for the counts of .ci/run, which sets KEEPCACHE_FULL. So do the longer runs of KEEPCACHE_LONG.
var Full = os.Getenv("KEEPCACHE_FULL") != "" || os.Getenv("KEEPCACHE_LONG") != ""

// Of returns quick, or full if the full counts are asked for.
func Of[T any](quick, full T) T {
	if Full {
		return full
	}
	return quick
}
