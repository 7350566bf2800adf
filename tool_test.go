package keepcache_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func init() { children["tool"] = tool }

// tool looks up one thing as docs/command-line-tools.md says, with a source that takes 300 ms.
func tool(t tester, args []string) {
	cache := toolCache{args[0]}
	var answer string
	found, err := cache.get(args[1], &answer)
	require.NoError(t, err)
	if !found {
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, cache.set(args[1], "answer "+args[1], time.Hour))
	}
}

// Any number of command line tools can use one cache at the same time, if they have it open only while they use it.
func TestTool_Many(t *testing.T) {
	path := newPath(t)
	const tools = 24
	var wait sync.WaitGroup
	failed := make([]error, tools)
	for i := range tools {
		wait.Go(func() {
			out, err := childCommand("tool", path, strconv.Itoa(i%20)).Output()
			if err != nil {
				failed[i] = fmt.Errorf("%w: %s", err, out)
			}
		})
	}
	wait.Wait()
	for _, err := range failed {
		require.NoError(t, err)
	}
	db := open(t, path, nil)
	for i := range 20 {
		requireValue(t, db.Bucket("default"), strconv.Itoa(i), fmt.Sprint("answer ", i))
	}
}

// The Go code in the documentation is part of an Example, word for word, so that it is compiled and run.
func TestDocs_Code(t *testing.T) {
	var examples strings.Builder
	files, err := filepath.Glob("example*_test.go")
	require.NoError(t, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		examples.Write(text)
	}
	block := regexp.MustCompile("(?s)```go\n(.*?)```")
	for _, page := range []string{"docs/command-line-tools.md", "docs/operating.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		found := block.FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, found, page)
		for _, code := range found {
			require.Contains(t, examples.String(), code[1], page)
		}
	}
}
