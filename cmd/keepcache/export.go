package main

import (
	"bufio"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsontext"
)

func newExportCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all entries as JSON Lines",
		Long: `Export writes the entries of all buckets, or only of --bucket, to standard
output. That includes stale entries that may still be served, and negative
entries, which record that a loader found nothing. Each entry is a line with a
JSON object. It has these members; those that do not apply are left out:

  bucket          the bucket's name; bucket_base64 if it is not UTF-8
  etag            the ETag of a loaded value; etag_base64 if it is not UTF-8
  expires_at_ms   when it expires
  key             the key; key_base64 if it is not UTF-8
  literals        positions of the numbers in the value that are stored as text
  loaded_at_ms    when it was loaded
  negative        true if a loader found nothing; then the value is null
  retry_at_ms     after a failed load, when it may be loaded again
  sliding_ms      the lifetime that each read renews, in milliseconds
  stale_until_ms  until when it may be served stale; -1 for no limit
  tags            its tags; {"base64": ...} for a tag that is not UTF-8
  value           the value
  written_at_ms   when it was written

Times are in Unix milliseconds. Import reads these lines.`,
		Example: `  keepcache export > backup.jsonl
  keepcache export --bucket sessions | gzip > sessions.jsonl.gz`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return f.open(cmd, showing, func(c cache, one string) error {
				names := []string{one}
				var err error
				if cmd.Flags().Changed("bucket") {
					err = known(c, one)
				} else {
					names, err = c.buckets()
				}
				if err != nil {
					return err
				}
				out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
				p := newProgress(cmd.ErrOrStderr())
				if isTerminal(cmd.OutOrStdout()) {
					p = nil // the entries themselves show the progress
				}
				defer p.end()
				n, damaged, redacted := 0, 0, 0
				for _, name := range names {
					for e, err := range c.list(listing{bucket: name, ScanOptions: keepcache.ScanOptions{Stale: true}}) {
						if isDamagedEntry(e, err) {
							damaged++
							continue
						}
						if err == nil && (e.redacted || e.partial) {
							redacted++
						}
						var line []byte
						if err == nil {
							line, err = exportLine(name, e)
						}
						if err == nil {
							_, err = out.Write(line)
						}
						if err == nil && ctx.Err() != nil {
							err = errInterrupted
						}
						if err != nil {
							return errors.Join(err, out.Flush())
						}
						n++
						p.show("%s exported", plural(n, "entry", "entries"))
					}
				}
				p.end()
				if err := out.Flush(); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "exported %s\n", plural(n, "entry", "entries"))
				if redacted > 0 {
					return fmt.Errorf("%s redacted by the running program", plural(redacted, "entry is", "entries are"))
				}
				return damagedEntries(damaged)
			})
		},
	}
	return cmd
}

func exportLine(bucket string, e *entry) ([]byte, error) {
	n, err := e.node()
	if err != nil {
		return nil, err
	}
	var l jsontext.Literals
	value := n.Append(nil, &l)
	var o object
	moment := func(name string, t time.Time) {
		if !t.IsZero() {
			o.int(name, max(t.UnixMilli(), 1)) // 0 is none
		}
	}
	o.name("bucket", bucket)
	if e.ETag != "" {
		o.name("etag", e.ETag)
	}
	moment("expires_at_ms", e.ExpiresAt)
	switch {
	case e.StaleUntil.Equal(e.ExpiresAt):
	case e.StaleUntil.IsZero():
		o.int("stale_until_ms", -1)
	default:
		o.int("stale_until_ms", e.StaleUntil.UnixMilli())
	}
	o.name("key", e.Key)
	if len(l.Places) > 0 {
		list := []byte{'['}
		for i, place := range l.Places {
			if i > 0 {
				list = append(list, ',')
			}
			list = fmt.Append(list, place)
		}
		o.raw("literals", append(list, ']'))
	}
	moment("loaded_at_ms", e.LoadedAt)
	if e.Negative {
		o.bool("negative", true)
	}
	moment("retry_at_ms", e.RetryAt)
	if e.Sliding != 0 {
		o.int("sliding_ms", e.Sliding.Milliseconds())
	}
	if len(e.Tags) > 0 {
		o.raw("tags", tagsJSON(e.Tags))
	}
	o.raw("value", value)
	moment("written_at_ms", e.WrittenAt)
	return o.line(), nil
}
