package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

// Commands that verify runs in separate processes. They are not for users.
const (
	checkEntriesName = "internal-check-entries"
	checkPagesName   = "internal-check-pages"
)

// The memory that a check may use, in bytes: checkBytes, plus checkPageBytes for each 4 KiB of the file, for our list
// of pages and bbolt's, plus checkJournalTimes the size of the journal, whose contents are in memory. A check beside a
// running program also holds one value at a time.
const (
	checkBytes        = 256 << 20
	checkPageBytes    = 128
	checkJournalTimes = 16
	checkValueBytes   = 1 << 30
)

// limitCheck bounds the memory of a check.
func limitCheck(path string, more int64) {
	limit := checkBytes + more
	if info, err := os.Stat(path); err == nil {
		limit += info.Size() / 4096 * checkPageBytes
	}
	limitMemory(limit)
}

// newCheckEntriesCommand returns the command that runs the library's Verify.
func newCheckEntriesCommand() *cobra.Command {
	return &cobra.Command{
		Use:    checkEntriesName + " FILE",
		Hidden: true,
		Args:   keyArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			watchParent(cmd.InOrStdin())
			return json.NewEncoder(cmd.OutOrStdout()).Encode(checkEntries(cmd, args[0]))
		},
	}
}

func checkEntries(cmd *cobra.Command, path string) (c checked) {
	journal := int64(0)
	if info, err := os.Stat(journalOf(path)); err == nil {
		journal = info.Size()
	}
	limitCheck(path, journal*checkJournalTimes)
	options := &keepcache.Options{ReadOnly: true, LockTimeout: -1}
	db, err := keepcache.Open(path, options)
	if errors.Is(err, keepcache.ErrLocked) {
		options.NoLock = true
		limitCheck(path, journal*checkJournalTimes+checkValueBytes)
		db, err = keepcache.Open(path, options)
	}
	switch {
	case errors.Is(err, keepcache.ErrCorrupt):
		return checked{Problems: []string{oneLine(err.Error())}}
	case err != nil:
		return checked{Err: printable(err.Error()), Code: exitCode(err)}
	}
	// No Close: the process ends now, and on a damaged file Close may never return.
	ctx, stop := interruptible(cmd)
	defer stop()
	r, err := db.Verify(ctx)
	c = checked{
		Buckets: int64(r.Buckets), Entries: int64(r.Entries), Expired: int64(r.Expired),
		Pending: int64(r.Pending), Rows: int64(r.Rows), Journal: r.Journal, More: int64(r.More), Beside: options.NoLock,
	}
	for _, p := range r.Problems {
		c.Problems = append(c.Problems, oneLine(p.String()))
	}
	if err != nil {
		c.Problems = append(c.Problems, oneLine(err.Error()))
	}
	return c
}

// mostLine is the maximum length of a problem's text, in bytes.
const mostLine = 1000

// oneLine returns the text of a problem as one printable line of bounded length.
func oneLine(words string) string {
	words = strings.ReplaceAll(strings.TrimPrefix(cut(words), "keepcache: "), "\n", ": ")
	return cut(printable(words))
}

// cut cuts text that is too long for a line.
func cut(text string) string {
	if len(text) <= mostLine {
		return text
	}
	n := mostLine
	for n > mostLine-utf8.UTFMax && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "..."
}
