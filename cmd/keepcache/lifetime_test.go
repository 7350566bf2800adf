package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

// TestParseLifetime reads what the help promises, and refuses the rest.
func TestParseLifetime(t *testing.T) {
	good := map[string]time.Duration{
		"90s":     90 * time.Second,
		"1h30m":   90 * time.Minute,
		"1.5s":    1500 * time.Millisecond,
		"7d":      7 * day,
		"1.5d":    36 * time.Hour,
		"1d12h":   36 * time.Hour,
		"0d5m":    5 * time.Minute,
		"100000d": 100000 * day,
		"1ns":     1,
		"never":   keepcache.NoExpiry,
	}
	for text, want := range good {
		got, err := parseLifetime(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	bad := []string{
		"", "0", "0s", "0d", "5", "1.5", "-1s", "-1.5s", "-1d", "1d-1h", "d", "dd", "1dx", "x", "Never", "NaNd", "Infd",
		"1e3d", "0x1d", "1_0d", "200000d", "106752d", "9999999999h", "1d1d", " 5m",
	}
	for _, text := range bad {
		_, err := parseLifetime(text)
		var usage *usageError
		require.ErrorAs(t, err, &usage, "%q", text)
	}
}

// TestShowLifetime shows a lifetime as parseLifetime reads it.
func TestShowLifetime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		keepcache.NoExpiry:                 "never",
		1234567 * time.Microsecond:         "1.235s",
		day:                                "1d",
		7*day - 1:                          "7d",
		6*day + 23*time.Hour + time.Second: "6d23h0m1s",
		5 * time.Minute:                    "5m0s",
	} {
		require.Equal(t, want, showLifetime(d))
		back, err := parseLifetime(showLifetime(d))
		require.NoError(t, err)
		if d != keepcache.NoExpiry {
			require.Equal(t, d.Round(time.Millisecond), back)
		}
	}
	require.Equal(t, "4m59s", showShort(5*time.Minute-time.Millisecond))
}
