package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDemo_Broken ensures that the demo can fail: what is not as promised is said, and counted.
func TestDemo_Broken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	db := openCache(t, path)
	var out strings.Builder
	d := &demo{out: &out, path: path, begun: time.Now(), set: map[string]time.Time{}}
	for _, e := range demoEntries() {
		switch e.key {
		case "temp-key": // lost
			continue
		case "greeting": // another value
			e.value = "Hello"
		case "user:123": // another lifetime
			e.ttl = 2 * e.ttl
		}
		require.NoError(t, db.Set(e.key, e.value, e.ttl))
		d.set[e.key] = time.Now()
	}
	require.NoError(t, d.everything(t.Context(), db))
	require.Equal(t, 10, d.checks)
	require.Equal(t, 3, d.failed)
	require.Equal(t, 3, strings.Count(out.String(), "NOT OK"))

	d.end()
	require.Contains(t, out.String(), "Not as promised: 3 of 10 checks failed.")
}

// TestDemo_Width ensures that a terminal shows each line of the demo's end as one, with a file where Linux puts it.
func TestDemo_Width(t *testing.T) {
	var out strings.Builder
	d := &demo{out: &out, path: "/tmp/keepcache-demo-1234567890/demo.cache"}
	d.end()
	for line := range strings.Lines(strings.ReplaceAll(out.String(), programName(), "keepcache")) {
		require.LessOrEqual(t, len(line), helpWidth+1, line)
	}
}
