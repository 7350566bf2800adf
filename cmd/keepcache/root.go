package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

// Groups of the commands in the help text.
const (
	groupEntries = "entries"
	groupCache   = "cache"
	groupOther   = "other"
)

func newRootCommand() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:   "keepcache",
		Short: "Look into a keepcache file and change it",
		Long: `keepcache looks into cache files and changes them.

A cache is one file. Name it with --file, or once for all commands in the
environment variable KEEPCACHE_FILE. Values are JSON; entries can have a
lifetime, and are gone when it ends. A cache that a program has open is reached
through the socket beside the file, if the program serves one, and read without its
lock if not; --addr names a program instead of a file. What a command finds goes to standard
output, everything else it has to say to standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such key or bucket,
4 the file is locked by another process.`,
		Example: `  keepcache demo
  export KEEPCACHE_FILE=app.cache
  keepcache set user:123 '{"username":"ada","roles":["admin"]}' --ttl 5m
  keepcache get user:123
  keepcache keys --long`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("unknown command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				err = fmt.Errorf("%w, did you mean %q?", err, near[0])
			}
			return err
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	p := root.PersistentFlags()
	p.StringVarP(&f.file, "file", "f", "", "cache file (default: $KEEPCACHE_FILE)")
	p.StringVar(&f.addr, "addr", "", "running program instead of a file: unix:PATH or http://HOST/PATH (default: $KEEPCACHE_ADDR)")
	p.StringVarP(&f.bucket, "bucket", "b", keepcache.DefaultBucket, "bucket")
	p.BoolVar(&f.quoted, "quoted", false, `read names that begin with " as the quoted text that keys prints`)

	root.AddGroup(
		&cobra.Group{ID: groupEntries, Title: "Entries:"},
		&cobra.Group{ID: groupCache, Title: "The whole cache:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupEntries,
		newGetCommand(f), newSetCommand(f), newAddCommand(f), newDeleteCommand(f), newExistsCommand(f),
		newTTLCommand(f), newTouchCommand(f), newKeysCommand(f), newStatCommand(f))
	add(groupCache,
		newBucketsCommand(f), newStatsCommand(f), newTopCommand(f), newWatchCommand(f),
		newClearCommand(f), newSweepCommand(f), newCompactCommand(f),
		newVerifyCommand(f), newRepairCommand(f), newBackupCommand(f), newRestoreCommand(f),
		newExportCommand(f), newImportCommand(f))
	add(groupOther, newDemoCommand(f), newVersionCommand(), newCompletionCommand())
	add("", newCheckEntriesCommand(), newCheckPagesCommand(), newDemoWriterCommand())
	root.SetHelpCommandGroupID(groupOther)

	// The template shows the bare program as a use, which only leads to this help.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable .HasParent}}", 1))
	asUsage(root)
	return root
}

// asUsage makes every complaint of cobra about the command line a usageError, in cmd and below it.
func asUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	check := cmd.Args
	if check == nil {
		check = keyArgs()
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
	cmd.DisableFlagsInUseLine = true
	for _, c := range cmd.Commands() {
		asUsage(c)
	}
}

// keyArgs asks for exactly the named arguments.
func keyArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing", names[len(args)])
		case len(args) > len(names):
			return fmt.Errorf("unexpected argument %q; quote what has spaces in it", args[len(names)])
		}
		return nil
	}
}

// exclusive refuses flags that contradict each other.
func exclusive(cmd *cobra.Command, a, b string) error {
	if cmd.Flags().Changed(a) && cmd.Flags().Changed(b) {
		return usagef("--%s and --%s exclude each other", a, b)
	}
	return nil
}

var errInterrupted = errors.New("interrupted")
