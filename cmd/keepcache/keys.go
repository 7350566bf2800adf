package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/glob"
)

func newKeysCommand(f *flags) *cobra.Command {
	var long, asJSON bool
	var limit int
	var pattern string
	scan := keepcache.ScanOptions{KeysOnly: true}
	cmd := &cobra.Command{
		Use:   "keys [PREFIX]",
		Short: "List the keys of a bucket",
		Long: `Keys lists the keys of a bucket in byte order, or with PREFIX only those that
begin with it. --reverse lists them in the opposite order. --from and --to list
a range of keys, which includes --from and excludes --to.

PREFIX has no pattern characters. --glob takes a pattern for whole keys: *
matches any text, ? one character, [a-z] and [^a-z] one character of a set, and
\ takes the next character literally. --tag lists only entries with that tag.
--long adds sizes and lifetimes.

With --limit it stops after that many keys, and says on standard error how to
continue. Keys that are not plain text are printed quoted; with --quoted, every
command accepts them in that form.`,
		Example: `  keepcache keys
  keepcache keys user: --long
  keepcache keys --glob 'user:*:name'
  keepcache keys --from 2026-01 --to 2026-02 --reverse
  keepcache keys --limit 100 --after user:123
  keepcache keys --json`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				scan.Prefix = args[0]
			}
			for _, name := range []*string{&scan.Prefix, &scan.From, &scan.To, &scan.After, &scan.Tag} {
				var err error
				if *name, err = f.name(*name); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("glob") {
				match, err := glob.Parse(pattern)
				if err != nil {
					return usagef("--glob: %v", err)
				}
				switch {
				case strings.HasPrefix(match.Prefix, scan.Prefix):
					scan.Prefix = match.Prefix
				case !strings.HasPrefix(scan.Prefix, match.Prefix):
					return nil // no key begins with both
				}
			}
			if limit < 0 {
				return usagef("--limit: %d is negative", limit)
			}
			return f.open(cmd, reading, func(c cache, bucket string) error {
				if err := known(c, bucket); err != nil {
					return err
				}
				out := bufio.NewWriter(cmd.OutOrStdout())
				defer out.Flush()
				list := lister{out: out, long: long, asJSON: asJSON}
				if long && !asJSON && isTerminal(cmd.OutOrStdout()) {
					fmt.Fprintf(out, "%10s  %16s  %s\n", "SIZE", "LIFETIME", "KEY")
				}
				damaged, n, shown := 0, 0, ""
				q := listing{ScanOptions: scan, bucket: bucket, glob: pattern, limit: limit}
				for e, err := range c.list(q) {
					switch {
					case isDamagedEntry(e, err):
						damaged++
						continue
					case err != nil:
						return err
					}
					if limit > 0 && n == limit {
						fmt.Fprintf(cmd.ErrOrStderr(), "keepcache: there are more keys; continue with --after %s\n",
							shellQuote(display.Name(shown)))
						break
					}
					list.print(e.Entry)
					n, shown = n+1, e.Key
				}
				return damagedEntries(damaged)
			})
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show sizes and lifetimes")
	cmd.Flags().StringVar(&pattern, "glob", "", "only keys that match this pattern")
	cmd.Flags().IntVarP(&limit, "limit", "n", 0, "stop after this many keys (0: no limit)")
	cmd.Flags().StringVar(&scan.Tag, "tag", "", "only entries with this tag")
	cmd.Flags().StringVar(&scan.After, "after", "", "begin after this key")
	cmd.Flags().StringVar(&scan.From, "from", "", "only keys from this one on")
	cmd.Flags().StringVar(&scan.To, "to", "", "only keys before this one")
	cmd.Flags().BoolVar(&scan.Reverse, "reverse", false, "list in descending order")
	addJSON(cmd, &asJSON)
	return cmd
}

// lister prints entries in the form of the command keys.
type lister struct {
	out          io.Writer
	long, asJSON bool
}

func (l lister) print(e keepcache.Entry) {
	switch {
	case l.asJSON:
		var o object
		expiresMember(&o, e)
		o.name("key", e.Key)
		o.int("size", int64(e.Size))
		lifetimeMember(&o, e)
		l.out.Write(o.line())
	case l.long:
		fmt.Fprintf(l.out, "%10s  %16s  %s\n", size(int64(e.Size)), showShort(remaining(e, time.Now())), display.Name(e.Key))
	default:
		fmt.Fprintln(l.out, display.Name(e.Key))
	}
}

// damagedEntries is the error of a command that had to skip damaged entries.
func damagedEntries(n int) error {
	if n == 0 {
		return nil
	}
	return &partialError{fmt.Errorf("skipped %s: %w (keepcache verify has the details)",
		plural(n, "entry", "entries"), keepcache.ErrCorrupt)}
}
