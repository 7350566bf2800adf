// Package damage_test damages the files of caches in chosen places, and looks at what is read, reported, mended, kept
// aside and saved.
package damage_test

import (
	"testing"

	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func TestMain(m *testing.M) { cachetest.Main(m) }
