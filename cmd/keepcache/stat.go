package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

func newStatCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stat KEY",
		Short: "Print what is known of a key",
		Long: `Stat prints the size of a key's encoded value, when it was written, when it
expires, and its revision, which rises with every write. An absent key gives exit
code 3.`,
		Example: `  keepcache stat user:123`,
		Args:    keyArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := f.name(args[0])
			if err != nil {
				return err
			}
			return f.open(reading, func(db *keepcache.DB, b *keepcache.Bucket) error {
				e, err := find(db, b, key)
				if err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				if asJSON {
					var o object
					o.name("bucket", b.Name())
					expiresMember(&o, e)
					o.name("key", key)
					o.int("revision", int64(e.Revision))
					o.int("size", int64(e.Size))
					lifetimeMember(&o, e)
					o.int("written_ms", e.Written.UnixMilli())
					out.Write(o.line())
					return nil
				}
				expires := never
				if left := remaining(e, time.Now()); left != keepcache.NoExpiry {
					expires = fmt.Sprintf("%s, in %s", showTime(e.FreshUntil), showLifetime(left))
				}
				fmt.Fprintf(out, "key       %s\n", display(key))
				fmt.Fprintf(out, "bucket    %s\n", display(b.Name()))
				fmt.Fprintf(out, "size      %s\n", size(int64(e.Size)))
				fmt.Fprintf(out, "written   %s\n", showTime(e.Written))
				fmt.Fprintf(out, "expires   %s\n", expires)
				fmt.Fprintf(out, "revision  %d\n", e.Revision)
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func showTime(t time.Time) string { return t.Format("2006-01-02 15:04:05.000 -07:00") }
