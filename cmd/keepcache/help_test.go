package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// TestHelp_Width requires that every page of help, and the usage behind it, fits a terminal of 80 columns, and that
// each command has an example.
func TestHelp_Width(t *testing.T) {
	pages := [][]string{{"help"}}
	for _, cmd := range newRootCommand().Commands() {
		if !cmd.Hidden {
			pages = append(pages, []string{"help", cmd.Name()}, []string{cmd.Name(), "--help"})
			require.NotEmpty(t, cmd.Example, cmd.Name())
		}
	}
	for _, args := range pages {
		var out, errOut bytes.Buffer
		require.Zero(t, run(args, strings.NewReader(""), &out, &errOut), args)
		require.Empty(t, errOut.String(), args)
		require.NotEmpty(t, out.String(), args)
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), helpWidth, "%s: %s", args, line)
			require.NotContains(t, line, "\t", args)
		}
	}
}

// TestHelp_Codes requires that the exit codes stand in the help as in docs/command.md, one row each.
func TestHelp_Codes(t *testing.T) {
	text, err := os.ReadFile("../../docs/command.md")
	require.NoError(t, err)
	page := strings.ReplaceAll(string(text), "\r\n", "\n")
	for line := range strings.Lines(exitCodes) {
		code, words, _ := strings.Cut(strings.TrimSpace(line), "  ")
		require.Contains(t, page, "| "+code+" | "+words+" |\n")
	}
}
