package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

var updateJSON = flag.Bool("update-json", false, "write testdata/json.txt anew")

// TestJSON holds the members of what each command prints with --json, and of the lines of export, to testdata/json.txt:
// none changes unnoticed. With -update-json the list is written anew.
func TestJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	b := db.Bucket(keepcache.DefaultBucket)
	now := time.Now()
	require.NoError(t, b.Restore(keepcache.Entry{
		Key: "full", WrittenAt: now, ExpiresAt: now.Add(time.Hour), StaleUntil: now.Add(2 * time.Hour), LoadedAt: now,
		RetryAt: now.Add(time.Minute), ETag: "v1", Tags: []string{"t"}, Sliding: time.Hour,
	}, map[string]any{"name": "ada"}))
	require.NoError(t, b.Set("plain", 1, keepcache.NoExpiry))
	require.NoError(t, db.Close())

	var list strings.Builder
	for _, args := range [][]string{
		{"buckets", "--json"}, {"exists", "full", "--json"}, {"get", "full", "--json"}, {"keys", "--json"},
		{"stat", "full", "--json"}, {"stat", "plain", "--json"}, {"stats", "--json"}, {"ttl", "full", "--json"},
		{"verify", "--json"}, {"version", "--json"}, {"export"},
	} {
		var out, words bytes.Buffer
		command := exec.Command("keepcache", append(args, "--file", path)...) // verify starts its own program
		command.Stdout, command.Stderr = &out, &words
		require.NoError(t, command.Run(), "%s: %s", args, &words)
		members := make(map[string]bool)
		for line := range strings.Lines(out.String()) {
			var value any
			require.NoError(t, json.Unmarshal([]byte(line), &value), "%s: %s", args, line)
			membersOf("", value, members)
		}
		fmt.Fprintf(&list, "keepcache %s\n", strings.Join(args, " "))
		for _, member := range slices.Sorted(maps.Keys(members)) {
			fmt.Fprintf(&list, "\t%s\n", member)
		}
	}
	if *updateJSON {
		require.NoError(t, os.WriteFile("testdata/json.txt", []byte(list.String()), 0o666))
	}
	want, err := os.ReadFile("testdata/json.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), list.String())
}

// membersOf adds each member of a value, with its path and its kind.
func membersOf(path string, value any, members map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			membersOf(path+"."+name, member, members)
		}
	case []any:
		members[path+" list"] = true
		for _, member := range v {
			membersOf(path+"[]", member, members)
		}
	case nil:
		members[path+" null"] = true
	default:
		members[fmt.Sprintf("%s %T", path, v)] = true
	}
}
