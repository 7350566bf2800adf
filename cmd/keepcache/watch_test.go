package main

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/wire"
)

// TestWatch_Progress prints how far long work is, whatever a program says.
func TestWatch_Progress(t *testing.T) {
	for want, e := range map[string]wire.Event{
		"progress     backup":                      {Detail: "backup"},
		"progress     backup  0 % of 2.0 KiB":      {Detail: "backup", Total: 2048},
		"progress     backup  49 % of 2.0 KiB":     {Detail: "backup", Done: 1023, Total: 2048},
		"progress     compact  100 % of 2.0 KiB":   {Detail: "compact", Done: 2048, Total: 2048},
		"progress     compact  100 % of 1 B":       {Detail: "compact", Done: math.MaxInt64, Total: 1},
		"progress     compact  0 % of 1.0 KiB":     {Detail: "compact", Done: -1, Total: 1024},
		"progress     a compaction without a size": {Detail: "a compaction without a size", Done: 5, Total: -1},
	} {
		e.Kind = "progress"
		_, line, _ := strings.Cut(eventLine(e), "  ")
		require.Equal(t, want, line)
	}
	text := string(eventJSON(wire.Event{Time: 1, Kind: "progress", Detail: "backup", Done: 3, Total: 4}))
	require.Equal(t, `{"at_ms":1,"detail":"backup","done_bytes":3,"kind":"progress","total_bytes":4}`+"\n", text)
}
