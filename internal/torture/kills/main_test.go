// Package kills_test kills processes that use a cache, at any moment, and looks at what they leave.
package kills_test

import (
	"testing"

	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func TestMain(m *testing.M) { cachetest.Main(m) }
