package main

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache/internal/jsontext"
)

func newExportCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all entries as JSON Lines",
		Long: `Export writes the live entries of all buckets, or of the one that --bucket names,
to standard output, one JSON object a line:

  bucket      the bucket's name; bucket_base64 where it is not UTF-8
  expires_ms  when it expires, in unix milliseconds; left out if never
  key         the key; key_base64 where it is not UTF-8
  literals    which numbers of the value were stored as text; mostly left out
  value       the value

Import reads it back: values, deadlines and names are the same then.`,
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
					p = nil // the entries themselves show how far it is
				}
				defer p.end()
				n, damaged, redacted := 0, 0, 0
				for _, name := range names {
					for e, err := range c.list(listing{bucket: name, values: true}) {
						if isDamagedEntry(e, err) {
							damaged++
							continue
						}
						if err == nil && e.redacted {
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
					return fmt.Errorf("%s not what is stored: the running program shows another", plural(redacted, "value is", "values are"))
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
	o.name("bucket", bucket)
	if !e.FreshUntil.IsZero() {
		o.int("expires_ms", e.FreshUntil.UnixMilli())
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
	o.raw("value", value)
	return o.line(), nil
}
