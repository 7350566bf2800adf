package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// TestComplete_Many offers groups where there are many keys, and nothing where there are many groups too.
func TestComplete_Many(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	for bucket, key := range map[string]string{"groups": "group%[2]d:item%[1]d", "flat": "k%[1]d"} {
		for i := range 2 * completeMost {
			require.NoError(t, db.Bucket(bucket).Set(fmt.Sprintf(key, i, i%7), i, 0))
		}
	}
	require.NoError(t, db.Bucket("groups").Set("alone", 1, 0))
	require.NoError(t, db.Bucket("groups").Set("group3\xff", 1, 0)) // the group ends behind it
	require.NoError(t, db.Close())
	complete := func(args ...string) []string {
		var out, errOut bytes.Buffer
		require.Zero(t, run(append([]string{"__complete", "get", "--file", path}, args...), strings.NewReader(""), &out,
			&errOut))
		return strings.Split(strings.TrimSpace(out.String()), "\n")
	}
	require.Equal(t, []string{"alone", "group0:", "group1:", "group2:", "group3:", "group4:", "group5:", "group6:", ":6"},
		complete("-b", "groups", ""))
	require.Len(t, complete("-b", "groups", "group3:"), 2*completeMost/7+1+1)
	require.Equal(t, []string{"_activeHelp_ " + moreNames, ":4"}, complete("-b", "flat", ""))
	require.Equal(t, []string{"k42", "k420", "k421", "k422", "k423", "k424", "k425", "k426", "k427", "k428", "k429",
		":4"}, complete("-b", "flat", "k42"))
}

// TestTypable offers no name that a shell would run, change or take for a flag.
func TestTypable(t *testing.T) {
	for _, name := range []string{"a", "user:1", "a.b/c_d-e=f,g+h@i%j", "日本", "grüße", "0"} {
		require.True(t, typable(name), name)
	}
	for _, name := range []string{
		"", "-a", "--file", "a b", "$(x)", "`x`", "a;b", "a|b", "a&b", "a>b", "a<b", "a'b", `a"b`, `a\b`, "a*", "a?", "[a]",
		"{a}", "~", "a!b", "#a", "a\nb",
		"a\x1b", "\xff", "a\u202eb", "(a)", "^a", "=a", "@a", "%1",
	} {
		require.False(t, typable(name), "%q", name)
	}
}

// TestMake_Together has several commands make the same file at the same time: nothing that one of them has stored is
// lost.
func TestMake_Together(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "app.cache")
		var wait sync.WaitGroup
		var mu sync.Mutex
		sums := make(map[string]bool)
		for range 4 {
			wait.Go(func() {
				var out, errOut bytes.Buffer
				code := run([]string{"incr", "n", "--file", path}, strings.NewReader(""), &out, &errOut)
				mu.Lock()
				defer mu.Unlock()
				if code == exitLocked { // on a machine with other work
					return
				}
				if code != 0 || sums[out.String()] {
					t.Errorf("code %d, %q twice, %s", code, out.String(), errOut.String())
				}
				sums[out.String()] = true
			})
		}
		wait.Wait()
		db, err := keepcache.Open(path, &keepcache.Options{LockTimeout: 10 * time.Second})
		require.NoError(t, err)
		var n int
		_, err = db.Get("n", &n)
		require.NoError(t, err)
		require.Equal(t, len(sums), n)
		require.NoError(t, db.Close())
		left, err := filepath.Glob(path + "*")
		require.NoError(t, err)
		require.Len(t, left, 1)
	}
}
