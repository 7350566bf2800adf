package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

const (
	day   = 24 * time.Hour
	never = "never"
)

// addTTL adds the flag --ttl.
func addTTL(cmd *cobra.Command, ttl *string, otherwise string) {
	cmd.Flags().StringVarP(ttl, "ttl", "t", otherwise, "lifetime such as 90s, 5m, 1h30m, 7d or never")
}

// parseLifetime parses a lifetime: a Go duration that may begin with days, or never.
func parseLifetime(text string) (time.Duration, error) {
	if text == never {
		return keepcache.NoExpiry, nil
	}
	bad := func(why string) (time.Duration, error) {
		return 0, usagef("bad lifetime %q: %s", text, why)
	}
	var days float64
	rest := text
	if before, after, ok := strings.Cut(text, "d"); ok {
		var err error
		if days, err = strconv.ParseFloat(before, 64); err != nil || math.IsNaN(days) ||
			strings.ContainsAny(before, "eExX_") {
			return bad("want something like 90s, 5m, 1h30m, 7d or never")
		}
		rest = after
	}
	var d time.Duration
	if rest != "" || days == 0 {
		var err error
		if d, err = time.ParseDuration(rest); err != nil {
			if _, numberErr := strconv.ParseFloat(rest, 64); numberErr == nil && rest != "0" {
				return bad("it has no unit, such as s for seconds")
			}
			if errors.Is(err, strconv.ErrRange) {
				return bad("it is too long; use never")
			}
			return bad("want something like 90s, 5m, 1h30m, 7d or never")
		}
	}
	if days != 0 && d < 0 {
		return bad("want something like 90s, 5m, 1h30m, 7d or never")
	}
	sum := days*float64(day) + float64(d)
	switch {
	case sum <= 0:
		return bad("it must be more than nothing; never is for an entry that does not expire")
	case sum >= float64(math.MaxInt64):
		return bad("it is too long; use never")
	case days == 0:
		return d, nil
	case days == math.Trunc(days):
		return time.Duration(days)*day + d, nil
	}
	return time.Duration(sum), nil
}

// showLifetime formats a lifetime for parseLifetime, to the millisecond.
func showLifetime(d time.Duration) string {
	if d == keepcache.NoExpiry {
		return never
	}
	d = d.Round(time.Millisecond)
	if d < day {
		return d.String()
	}
	days := strconv.FormatInt(int64(d/day), 10) + "d"
	if d %= day; d != 0 {
		days += d.String()
	}
	return days
}

// showShort is showLifetime for tables, to the second if that is precise enough.
func showShort(d time.Duration) string {
	if d > time.Minute && d != keepcache.NoExpiry {
		d = d.Truncate(time.Second)
	}
	return showLifetime(d)
}

// remaining returns the lifetime of an entry from now on.
func remaining(e keepcache.Entry, now time.Time) time.Duration {
	if e.ExpiresAt.IsZero() {
		return keepcache.NoExpiry
	}
	return min(e.ExpiresAt.Sub(now), keepcache.NoExpiry-1) // Sub saturates
}
