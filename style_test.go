package keepcache_test

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Lines of code have at most 120 columns, a tab counting as one; what a string has beyond that does not count.
func TestStyle_Columns(t *testing.T) {
	const most = 120
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		quoted := bytesOfStrings(name, text)
		for i, line := range strings.Split(string(text), "\n") {
			if n := utf8.RuneCountInString(line) - quoted[i+1]; n > most {
				t.Errorf("%s:%d has %d columns", name, i+1, n)
			}
		}
		return nil
	}))
}

// bytesOfStrings returns how many bytes of each line of a file are in strings and runes.
func bytesOfStrings(name string, text []byte) map[int]int {
	quoted := make(map[int]int)
	files := token.NewFileSet()
	file := files.AddFile(name, -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, 0)
	for {
		at, tok, literal := s.Scan()
		switch tok {
		case token.EOF:
			return quoted
		case token.STRING, token.CHAR:
			for i, part := range strings.Split(literal, "\n") {
				quoted[file.Line(at)+i] += len(part)
			}
		}
	}
}
