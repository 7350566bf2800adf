package inspect

import (
	"strconv"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
)

// shorten leaves out the middle of a long text.
func shorten(text string, most int) string {
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	return string(runes[:most*3/4]) + " … " + string(runes[len(runes)-most/4:])
}

// count formats a number with its digits in groups of three.
func count[N int | int64 | uint64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// size formats a number of bytes for people.
func size[N int | int64 | uint64](n N) string {
	if n < 1024 {
		return strconv.FormatInt(int64(n), 10) + " B"
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f /= 1024; f < 1023.95 {
			break
		}
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + unit
}

// span formats a duration for people, in at most two units.
func span(d time.Duration) string {
	switch {
	case d == keepcache.NoExpiry:
		return "never"
	case d < 0:
		return "0s"
	case d < time.Microsecond:
		return strconv.FormatInt(d.Nanoseconds(), 10) + " ns"
	case d < time.Millisecond:
		return strconv.FormatFloat(float64(d)/1e3, 'g', 3, 64) + " µs"
	case d < time.Second:
		return strconv.FormatFloat(float64(d)/1e6, 'g', 3, 64) + " ms"
	case d < time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d < time.Hour:
		return pair(d, time.Minute, "m", time.Second, "s")
	case d < 24*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "m")
	}
	return pair(d, 24*time.Hour, "d", time.Hour, "h")
}

func pair(d, large time.Duration, l string, small time.Duration, s string) string {
	text := strconv.FormatInt(int64(d/large), 10) + l
	if rest := d % large / small; rest > 0 {
		text += " " + strconv.FormatInt(int64(rest), 10) + s
	}
	return text
}

// number formats a measured number with three digits.
func number(f float64) string {
	switch {
	case f >= 999.5:
		for _, unit := range []string{"k", "M", "G"} {
			if f /= 1000; f < 999.5 || unit == "G" {
				return strconv.FormatFloat(f, 'g', 3, 64) + unit
			}
		}
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}
