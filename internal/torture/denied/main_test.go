// Package denied_test uses caches where the system denies them something: room on the disk, writes to it, addresses,
// rights.
package denied_test

import (
	"testing"

	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func TestMain(m *testing.M) { cachetest.Main(m) }
