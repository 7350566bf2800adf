package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/wire"
)

func newStatCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stat KEY...",
		Short: "Print the details of keys",
		Long: `Stat prints the size of a key's encoded value, when it was written and when it
expires, its tags, and its revision, which rises with every write. If the entry
may be served stale after it expires, stat says until when. If a key is absent,
the exit code is 3.`,
		Example: `  keepcache stat user:123`,
		Args:    someArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, between := cmd.OutOrStdout(), ""
			return f.openKeys(cmd, reading, args, func(c cache, bucket, key string) error {
				e, err := c.find(bucket, key, false)
				switch {
				case asJSON:
					return printObject(out, bucket, key, err, func() error {
						out.Write(statJSON(bucket, key, e.Entry))
						return nil
					})
				case err != nil:
					return err
				}
				io.WriteString(out, between)
				printStat(out, bucket, key, e.Entry)
				between = "\n"
				return nil
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func statJSON(bucket, key string, e keepcache.Entry) []byte {
	var o object
	o.name("bucket", bucket)
	if e.ETag != "" {
		o.name("etag", e.ETag)
	}
	expiresMember(&o, e)
	o.bool("found", true)
	if servedStale(e) {
		o.int("stale_until_ms", e.StaleUntil.UnixMilli())
	}
	o.name("key", key)
	if !e.LoadedAt.IsZero() {
		o.int("loaded_at_ms", e.LoadedAt.UnixMilli())
	}
	o.int("revision", int64(e.Revision))
	o.int("size", int64(e.Size))
	if len(e.Tags) > 0 {
		o.raw("tags", tagsJSON(e.Tags))
	}
	lifetimeMember(&o, e)
	o.int("written_at_ms", e.WrittenAt.UnixMilli())
	return o.line()
}

func printStat(out io.Writer, bucket, key string, e keepcache.Entry) {
	expires := never
	if left := remaining(e, time.Now()); left != keepcache.NoExpiry {
		expires = showPoint(e.ExpiresAt, left)
	}
	fmt.Fprintf(out, "key       %s\n", display.Name(key))
	fmt.Fprintf(out, "bucket    %s\n", display.Name(bucket))
	fmt.Fprintf(out, "size      %s\n", size(int64(e.Size)))
	fmt.Fprintf(out, "written   %s\n", showTime(e.WrittenAt))
	fmt.Fprintf(out, "expires   %s\n", expires)
	if servedStale(e) {
		until := e.StaleUntil
		fmt.Fprintf(out, "stale     may be served until %s\n", showPoint(until, time.Until(until)))
	}
	if !e.LoadedAt.IsZero() {
		fmt.Fprintf(out, "loaded    %s\n", showTime(e.LoadedAt))
	}
	if e.ETag != "" {
		fmt.Fprintf(out, "etag      %s\n", display.Name(e.ETag))
	}
	if len(e.Tags) > 0 {
		fmt.Fprintf(out, "tags      %s\n", displayAll(e.Tags))
	}
	fmt.Fprintf(out, "revision  %d\n", e.Revision)
}

func showTime(t time.Time) string { return t.Format("2006-01-02 15:04:05.000 -07:00") }

// showPoint formats a point in time, and how far away it is.
func showPoint(t time.Time, left time.Duration) string {
	if left <= 0 {
		return fmt.Sprintf("%s, %s ago", showTime(t), showLifetime(-left))
	}
	return fmt.Sprintf("%s, in %s", showTime(t), showLifetime(left))
}

// servedStale reports whether an entry may be served stale after it has expired, until a time that is known.
func servedStale(e keepcache.Entry) bool {
	return e.StaleUntil.After(e.ExpiresAt) && !e.ExpiresAt.IsZero()
}

func displayAll(names []string) string {
	shown := make([]string, len(names))
	for i, name := range names {
		shown[i] = display.Name(name)
	}
	return strings.Join(shown, ", ")
}

// tagsJSON writes tags as a list. A tag that is not UTF-8 is an object with its base64.
func tagsJSON(tags []string) []byte {
	names := make([]wire.Name, len(tags))
	for i, tag := range tags {
		names[i] = wire.Name(tag)
	}
	text, _ := json.Marshal(names) // never fails
	return text
}
