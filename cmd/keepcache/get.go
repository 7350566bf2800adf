package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/jsontext"
)

func newGetCommand(f *flags) *cobra.Command {
	var asString, asBytes, asJSON bool
	cmd := &cobra.Command{
		Use:   "get KEY...",
		Short: "Print the values of keys",
		Long: `Get prints the value of a key as JSON. Members of objects are sorted, integers
are exact, and floats always have a fraction, such as 1.0. On a terminal, lists
and objects are indented. --string prints the text of a string without quotes.
--bytes prints the raw bytes of a value that was stored as bytes. With several
keys, get prints one value after the other.

An absent or expired key prints nothing, and the exit code is 3. With --json,
get prints a line for each key, with "found" false if it is absent. The same
holds for ttl and stat.`,
		Example: `  keepcache get user:123
  keepcache get motd --string
  keepcache get logo --bytes > logo.png
  keepcache get user:123 user:456 --json    # with their lifetimes`,
		Args: someArgs("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, pair := range [][2]string{{"string", "bytes"}, {"string", "json"}, {"bytes", "json"}} {
				if err := exclusive(cmd, pair[0], pair[1]); err != nil {
					return err
				}
			}
			if asBytes && len(args) > 1 {
				return usagef("--bytes takes only one key: several values could not be told apart")
			}
			return f.openKeys(cmd, showing, args, func(c cache, bucket, key string) error {
				out := cmd.OutOrStdout()
				entry, err := c.find(bucket, key, true)
				switch {
				case asJSON:
					return printObject(out, bucket, key, err, func() error { return printFound(out, bucket, key, entry) })
				case err != nil:
					return err
				case asString:
					return printString(out, key, entry)
				case asBytes:
					return printBytes(out, key, entry)
				}
				if entry.redacted {
					fmt.Fprintln(cmd.ErrOrStderr(), "keepcache: the running program does not show the value that it stores")
				}
				n, err := entry.node()
				if err != nil {
					return err
				}
				text := n.Append(nil, &jsontext.Literals{})
				if isTerminal(out) {
					var indented bytes.Buffer
					if err := json.Indent(&indented, text, "", "  "); err != nil {
						return err
					}
					text = indented.Bytes()
				}
				out.Write(append(text, '\n'))
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&asString, "string", "s", false, "print the text of a string as it is")
	cmd.Flags().BoolVar(&asBytes, "bytes", false, "print stored bytes as they are, without a line end")
	addJSON(cmd, &asJSON)
	return cmd
}

// printObject prints the JSON object of a key. If the key is there, it calls print for the members. If the key is
// absent, the object says so.
func printObject(w io.Writer, bucket, key string, err error, print func() error) error {
	var no *noError
	switch {
	case err == nil:
		return print()
	case errors.As(err, &no):
		var o object
		o.name("bucket", bucket)
		o.bool("found", false)
		o.name("key", key)
		w.Write(o.line())
	}
	return err
}

// printFound prints an entry with its value and lifetime.
func printFound(w io.Writer, bucket, key string, e *entry) error {
	n, err := e.node()
	if err != nil {
		return err
	}
	var o object
	o.name("bucket", bucket)
	expiresMember(&o, e.Entry)
	o.bool("found", true)
	o.name("key", key)
	lifetimeMember(&o, e.Entry)
	o.raw("value", n.Append(nil, &jsontext.Literals{}))
	w.Write(o.line())
	return nil
}

// expiresMember writes the deadline of an entry in unix milliseconds, null if it has none.
func expiresMember(o *object, e keepcache.Entry) {
	if e.ExpiresAt.IsZero() {
		o.null("expires_at_ms")
		return
	}
	o.int("expires_at_ms", e.ExpiresAt.UnixMilli())
}

// lifetimeMember writes the remaining lifetime of an entry, or null if it never expires.
func lifetimeMember(o *object, e keepcache.Entry) {
	if e.ExpiresAt.IsZero() {
		o.null("ttl_ms")
		return
	}
	o.int("ttl_ms", time.Until(e.ExpiresAt).Milliseconds())
}

func printString(w io.Writer, key string, e *entry) error {
	n, err := e.node()
	if err != nil {
		return err
	}
	if n.Kind != '"' {
		return fmt.Errorf("the value of %s is not a string; get it without --string", display.Name(key))
	}
	io.WriteString(w, n.Text+"\n")
	return nil
}

func printBytes(w io.Writer, key string, e *entry) error {
	raw, err := e.bytes()
	if err == nil {
		var n jsontext.Node
		if n, err = e.node(); err == nil && n.Kind != '"' {
			err = errNoBytes
		}
	}
	if err != nil {
		return fmt.Errorf("the value of %s is not bytes; get it without --bytes", display.Name(key))
	}
	w.Write(raw)
	return nil
}
