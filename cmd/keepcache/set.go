package main

import (
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsontext"
)

func newSetCommand(f *flags) *cobra.Command {
	in := &input{}
	cmd := &cobra.Command{
		Use:   "set KEY VALUE",
		Short: "Store a value under a key",
		Long: `Set stores a value under a key, and replaces the old value and lifetime.
Without --ttl the entry never expires. VALUE is JSON, or plain text with
--string, or any bytes with --bytes. If VALUE is -, set reads standard input.
Put a value such as -5 after --, and all flags before it.

An existing entry keeps its tags, unless --tag gives it others, and the time
for which it may be served stale. It loses its ETag. If there is no cache file,
set creates it.`,
		Example: `  keepcache set user:123 '{"username":"ada","roles":["admin"]}' --ttl 5m
  keepcache set page:home '"<html>"' --tag product:7 --tag lang:en
  keepcache set degrees -- -5
  keepcache set motd 'Hello, World!' --string
  keepcache set logo - --bytes < logo.png`,
		Args: keyArgs("KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := in.read(cmd, f, args)
			if err != nil {
				return err
			}
			return f.openWith(cmd, creating, in.options(), func(c cache, bucket string) error { return c.set(bucket, w) })
		},
	}
	in.addFlags(cmd)
	return cmd
}

// input is the source of the value for commands that store one.
type input struct {
	ttl      string
	asString bool
	asBytes  bool
	tags     []string
	most     int64 // bytes
}

// defaultMost is the largest value that the library accepts by default, in bytes.
const defaultMost = 64 << 20

func (in *input) addFlags(cmd *cobra.Command) {
	addTTL(cmd, &in.ttl, never)
	cmd.Flags().StringArrayVar(&in.tags, "tag", nil, "give the entry this tag; may be repeated")
	cmd.Flags().BoolVarP(&in.asString, "string", "s", false, "store VALUE as text, not as JSON")
	cmd.Flags().BoolVar(&in.asBytes, "bytes", false, "store VALUE as bytes, not as JSON")
	addMost(cmd, &in.most)
}

func addMost(cmd *cobra.Command, most *int64) {
	cmd.Flags().Int64Var(most, "max-value-bytes", defaultMost, "largest value to accept, up to 500 MiB")
}

func (in *input) options() keepcache.Options { return keepcache.Options{MaxValueBytes: int(in.most)} }

// checkMost refuses a largest value that makes no sense.
func checkMost(most int64) error {
	if most < 1 || most > 500<<20 {
		return usagef("--max-value-bytes: %d is not between 1 and %d", most, 500<<20)
	}
	return nil
}

// read returns the value to store.
func (in *input) read(cmd *cobra.Command, f *flags, args []string) (w write, err error) {
	if err := exclusive(cmd, "string", "bytes"); err != nil {
		return w, err
	}
	if err := checkMost(in.most); err != nil {
		return w, err
	}
	if w.ttl, err = parseLifetime(in.ttl); err != nil {
		return w, err
	}
	if w.key, err = f.name(args[0]); err != nil {
		return w, err
	}
	for _, arg := range in.tags {
		tag, err := f.name(arg)
		if err != nil {
			return w, err
		}
		w.tags = append(w.tags, tag)
	}
	w.value, err = in.readValue(cmd, args[1])
	return w, err
}

func (in *input) readValue(cmd *cobra.Command, arg string) (v value, err error) {
	text := []byte(arg)
	if arg == "-" {
		tellTyping(cmd.InOrStdin(), cmd.ErrOrStderr(), "the value")
		if text, err = readAll(cmd.InOrStdin(), in.most); err != nil {
			return v, err
		}
	}
	switch {
	case in.asBytes:
		return value{raw: text}, nil
	case in.asString:
		if !utf8.Valid(text) {
			return v, usagef("VALUE is not UTF-8 text; --bytes takes any bytes")
		}
		return textValue(string(text)), nil
	}
	if _, err := jsontext.Parse(text); err != nil {
		return v, usagef("VALUE is not JSON: %v; --string takes plain text", err)
	}
	return value{text: text}, nil
}

func readAll(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("standard input: %w: more than %d bytes", keepcache.ErrTooLarge, most)
	}
	return text, nil
}
