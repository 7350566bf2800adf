package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

// demoWriterName is the command that demo runs in a separate process and kills. It is not for users.
const demoWriterName = "internal-demo-writer"

// demoEntry is one value of the service that demo plays.
type demoEntry struct {
	key   string
	value any
	shown string // the value as JSON
	ttl   time.Duration
}

// The lifetime of the token is what the reader of the demo waits for.
const demoToken = 3 * time.Second

func demoEntries() []demoEntry {
	user := map[string]any{
		"username": "john",
		"email":    "john@example.com",
		"roles":    []any{"admin", "user"},
	}
	return []demoEntry{
		{"greeting", "Hello, World!", `"Hello, World!"`, keepcache.NoExpiry},
		{"user:123", user, `{"email":"john@example.com", ...}`, 300 * time.Second},
		{"flag-key", true, `true`, keepcache.NoExpiry},
		{"last-error", nil, `null`, keepcache.NoExpiry},
		{"temp-key", "temporary", `"temporary"`, keepcache.NoExpiry},
		{"session-token", "abc123xyz", `"abc123xyz"`, demoToken},
	}
}

func newDemoWriterCommand() *cobra.Command {
	return &cobra.Command{
		Use:    demoWriterName + " FILE",
		Hidden: true,
		Args:   keyArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			db, err := keepcache.Open(args[0], nil)
			if err != nil {
				return err
			}
			for _, e := range demoEntries() {
				if err := db.Set(e.key, e.value, e.ttl); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), e.key)
			}
			// The cache stays open until the demo kills this process or ends.
			_, err = io.Copy(io.Discard, cmd.InOrStdin())
			return err
		},
	}
}
