package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

func newTopCommand(f *flags) *cobra.Command {
	var once bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show a live view of a running cache",
		Long: `Top shows a live view of a cache that a program has open and serves on its
socket: operations per second, hit ratio, latencies, sizes and their limits,
and the work of the sweeper. Below is one of four lists: buckets, hot keys, big
keys, or events. Hot keys come from a sample of the events.

"get" and hits count reads by Get and GetOrLoad. "set" counts writes by Set and
similar calls, but not values stored by loads. Latencies are those of Get and
Set, sampled from one call in 128. GetOrLoad is not timed, but each load is. If
there are loads, a line shows how long finished loads took, how many are
running, how many failed, and how often a stale value was served.

  tab, arrows   next or previous list; b, h, g and e go to one
  s             sort by another column
  /             show only names with this text; escape shows all again
  p             pause
  q             quit

With --once, or if standard output is not a terminal, top prints one view.`,
		Example: `  keepcache top
  keepcache top --interval 5s
  keepcache top --once`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < leastInterval || interval > time.Hour {
				return usagef("--interval: %s is not between %s and 1h", interval, leastInterval)
			}
			ctx, stop := endings(contextOf(cmd))
			defer stop()
			r, err := f.program(ctx)
			if err != nil {
				return err
			}
			defer r.close()
			t := &top{remote: r, interval: interval}
			if !once {
				if s, ok := openScreen(cmd.InOrStdin(), cmd.OutOrStdout()); ok {
					defer s.close() // also after a panic
					return t.run(ctx, s)
				}
			}
			return t.print(ctx, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one view and exit")
	cmd.Flags().DurationVarP(&interval, "interval", "i", defaultInterval, "time between two updates")
	return cmd
}

const (
	defaultInterval = 2 * time.Second
	leastInterval   = 100 * time.Millisecond
)

// top is one run of the command.
type top struct {
	remote   *remote
	interval time.Duration
	view     view
}

// print prints one view of what happened within one interval.
func (t *top) print(ctx context.Context, out io.Writer) error {
	c := newCollector(t.remote)
	if err := c.collect(ctx, listBuckets); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(t.interval):
	}
	if err := c.collect(ctx, listBuckets); err != nil {
		return err
	}
	t.view.style = styleOf(out)
	for _, line := range t.view.frame(c.picture(), 80, 24) {
		fmt.Fprintln(out, line)
	}
	return nil
}

// run draws until the user quits.
func (t *top) run(ctx context.Context, s *screen) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.view.style, t.view.help = styleOf(s.out), true
	c := newCollector(t.remote)
	go c.follow(ctx)
	pictures := make(chan collected, 1)
	wish := make(chan list, 1)
	go t.collect(ctx, c, wish, pictures)
	var last picture
	var failed error
	draw := func() {
		width, height := s.size()
		lines := t.view.frame(last, width, height)
		if failed != nil && len(lines) > 0 {
			lines[len(lines)-1] = t.view.style.bad(fit("no answer: "+printable(oneLine(failed.Error())), width))
		}
		s.draw(lines)
	}
	resize := time.NewTicker(resizeLook)
	defer resize.Stop()
	width, height := s.size()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-pictures:
			if failed = p.err; p.err == nil && !t.view.paused {
				last = p.picture
			}
			draw()
		case <-resize.C:
			if w, h := s.size(); w != width || h != height {
				width, height = w, h
				draw()
			}
		case k, ok := <-s.keys:
			if !ok {
				return nil // the terminal was closed
			}
			before := t.view.list
			if t.view.press(k) {
				return nil
			}
			if t.view.list != before {
				select {
				case wish <- t.view.list:
				default:
				}
			}
			draw()
		}
	}
}

// resizeLook is how often the size of the terminal is checked.
const resizeLook = 250 * time.Millisecond

// collected is a picture, or the error instead of one.
type collected struct {
	picture picture
	err     error
}

// collect takes a picture in each interval, and at once when the user selects another list.
func (t *top) collect(ctx context.Context, c *collector, wish <-chan list, pictures chan<- collected) {
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	for now := listBuckets; ; {
		p := collected{err: c.collect(ctx, now)}
		if p.err == nil {
			p.picture = c.picture()
		}
		select {
		case <-ctx.Done():
			return
		case pictures <- p:
		}
		select {
		case <-ctx.Done():
			return
		case now = <-wish:
		case <-ticker.C:
		}
	}
}

// list is one of the lists in the lower half of the view.
type list int

const (
	listBuckets list = iota
	listHot
	listBig
	listEvents
	lists // the number of lists
)

// press changes the view for a pressed key, and reports whether to quit.
func (v *view) press(k key) (quit bool) {
	if v.typing {
		switch k {
		case keyInterrupt:
			return true
		case keyEnter:
			v.typing = false
		case keyEscape:
			v.typing, v.filter = false, ""
		case keyBackspace:
			if runes := []rune(v.filter); len(runes) > 0 {
				v.filter = string(runes[:len(runes)-1])
			}
		default:
			if len([]rune(string(k))) == 1 && len(v.filter) < 256 {
				v.filter += string(k)
			}
		}
		return false
	}
	switch k {
	case "q", keyInterrupt:
		return true
	case keyTab, keyRight:
		v.list = (v.list + 1) % lists
	case keyLeft:
		v.list = (v.list + lists - 1) % lists
	case "b":
		v.list = listBuckets
	case "h":
		v.list = listHot
	case "g":
		v.list = listBig
	case "e":
		v.list = listEvents
	case "s":
		v.sort++
	case "p", " ":
		v.paused = !v.paused
	case "/":
		v.typing = true
	case keyEscape:
		v.filter = ""
	}
	if !slices.Contains([]key{"s", "p", " ", "/", keyRedraw}, k) {
		v.sort = v.sort % 3
	}
	return false
}
