package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDocs_Operating follows docs/operating.md: what is shown of the command is what it does, but for numbers of time.
func TestDocs_Operating(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh")
	}
	page, err := os.ReadFile("../../docs/operating.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(blocks), 2)
	var script, want strings.Builder
	script.WriteString("set -e\n")
	for _, b := range blocks {
		for line := range strings.Lines(b[1]) {
			want.WriteString(line)
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				script.WriteString("cat <<'SHOWN'\n" + line + "SHOWN\n" + command)
			}
		}
	}
	cmd := exec.Command(shell)
	cmd.Dir = t.TempDir()
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, want.String(), string(out))
}
