package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/wire"
)

// watched are the kinds of events of a running program, with other names that people use for them.
var watched = []struct {
	kind  keepcache.EventKind
	alias string
}{
	{keepcache.EventSet, ""},
	{keepcache.EventDelete, "deleted"},
	{keepcache.EventHit, ""},
	{keepcache.EventMiss, ""},
	{keepcache.EventStale, ""},
	{keepcache.EventNegative, ""},
	{keepcache.EventLoad, "loaded"},
	{keepcache.EventLoadFailed, ""},
	{keepcache.EventRefresh, ""},
	{keepcache.EventExpire, "expired"},
	{keepcache.EventEvict, "evicted"},
	{keepcache.EventCorrupt, ""},
	{keepcache.EventCompact, "compacted"},
	{keepcache.EventProgress, ""},
	{keepcache.EventUnavailable, ""},
	{keepcache.EventHealed, ""},
	{keepcache.EventQuarantine, ""},
}

func newWatchCommand(f *flags) *cobra.Command {
	var asJSON bool
	var prefix string
	var kinds []string
	var limit int
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print the events of a running cache",
		Long: `Watch prints the events of a cache that a program has open and serves on its
socket, as they happen, until it is interrupted. The kinds are set, delete,
hit, miss, stale, negative, load, load-failed, refresh, expire, evict, corrupt,
compact, progress, unavailable, healed and quarantine. The program never waits
for watch: if events come faster than they can be sent, some are dropped, and
watch prints how many.

Without --bucket it prints the events of all buckets. A line has the time, the
kind, the bucket, the key and, for some kinds, a detail: how long a load took,
or an error.`,
		Example: `  keepcache watch
  keepcache watch --bucket sessions --prefix user: --kinds set,expire
  keepcache watch --kinds miss --limit 20
  keepcache watch --json | jq .key`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := wire.Watch{}
			begin, err := f.name(prefix)
			if err != nil {
				return err
			}
			w.Prefix = begin
			if cmd.Flags().Changed("bucket") {
				if w.Bucket, err = f.name(f.bucket); err != nil {
					return err
				}
			}
			for _, name := range kinds {
				kind, err := parseKind(name)
				if err != nil {
					return err
				}
				w.Kinds = append(w.Kinds, kind)
			}
			if limit < 0 {
				return usagef("--limit: %d is negative", limit)
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			r, err := f.program(ctx)
			if err != nil {
				return err
			}
			defer r.close()
			out := cmd.OutOrStdout()
			n := 0
			for e, err := range r.client.Events(ctx, w) {
				switch {
				case err != nil && ctx.Err() != nil:
					return nil // an interrupt is the usual end
				case errors.Is(err, io.EOF):
					return fmt.Errorf("%s has ended or closed the cache", r.who())
				case err != nil:
					return err
				case asJSON:
					_, err = out.Write(eventJSON(e))
				default:
					_, err = fmt.Fprintln(out, eventLine(e))
				}
				if err != nil {
					return err
				}
				if n++; n == limit {
					return nil
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with this")
	cmd.Flags().StringSliceVar(&kinds, "kinds", nil, "only these kinds, separated by commas (default: all)")
	cmd.Flags().IntVarP(&limit, "limit", "n", 0, "stop after this many events (0: no limit)")
	addJSON(cmd, &asJSON)
	return cmd
}

// parseKind parses the name of a kind of events.
func parseKind(name string) (string, error) {
	for _, w := range watched {
		if own := w.kind.String(); name == own || name == w.alias && name != "" {
			return own, nil
		}
	}
	return "", usagef("--kinds: unknown kind %q; there are %s", name, strings.Join(kindNames(), ", "))
}

// kindNames returns the sorted names of all kinds.
func kindNames() (names []string) {
	for _, w := range watched {
		names = append(names, w.kind.String())
	}
	slices.Sort(names)
	return names
}

// eventLine formats an event for people.
func eventLine(e wire.Event) string {
	if e.Dropped > 0 {
		return fmt.Sprintf("%s  %s dropped, they came too fast", eventTime(e), plural(e.Dropped, "event", "events"))
	}
	line := fmt.Sprintf("%s  %-11s", eventTime(e), e.Kind)
	if e.Bucket != "" {
		line += "  " + display.Name(string(e.Bucket))
	}
	if e.Key != "" {
		line += "  " + display.Name(string(e.Key))
	}
	if e.Detail != "" {
		line += "  " + printable(oneLine(e.Detail))
	}
	if e.Total > 0 {
		part := max(min(float64(e.Done)/float64(e.Total), 1), 0)
		line += fmt.Sprintf("  %d %% of %s", int(100*part), size(e.Total))
	}
	if e.Err != "" {
		line += "  " + printable(oneLine(e.Err))
	}
	return strings.TrimRight(line, " ")
}

func eventTime(e wire.Event) string {
	at := time.Now()
	if e.Time != 0 {
		at = time.UnixMilli(e.Time)
	}
	return at.Format("15:04:05.000")
}

func eventJSON(e wire.Event) []byte {
	var o object
	o.int("at_ms", e.Time)
	if e.Bucket != "" {
		o.name("bucket", string(e.Bucket))
	}
	if e.Detail != "" {
		o.text("detail", e.Detail)
	}
	if e.Done > 0 {
		o.int("done_bytes", e.Done)
	}
	if e.Dropped > 0 {
		o.int("dropped", int64(e.Dropped))
	}
	if e.Err != "" {
		o.text("error", e.Err)
	}
	if e.Key != "" {
		o.name("key", string(e.Key))
	}
	o.text("kind", e.Kind)
	if e.Total > 0 {
		o.int("total_bytes", e.Total)
	}
	return o.line()
}

// events calls fn for events until fn returns false, ctx ends, or the program ends.
func (r *remote) events(ctx context.Context, w wire.Watch, fn func(wire.Event) bool) {
	for e, err := range r.client.Events(ctx, w) {
		if err != nil || !fn(e) {
			return
		}
	}
}
