package main

import (
	"fmt"
	"math"
)

// duration formats nanoseconds.
func duration(ns float64) string {
	switch {
	case ns < 1e3:
		return digits(ns) + " ns"
	case ns < 1e6:
		return digits(ns/1e3) + " us"
	case ns < 1e9:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

// rate formats operations a second.
func rate(v float64) string {
	switch {
	case v < 1e3:
		return digits(v) + "/s"
	case v < 1e6:
		return digits(v/1e3) + " k/s"
	}
	return digits(v/1e6) + " M/s"
}

// size formats bytes.
func size(v float64) string {
	if v < 1<<20 {
		return digits(v/(1<<10)) + " KiB"
	}
	return digits(v/(1<<20)) + " MiB"
}

// digits formats a number with three digits, and with more only if it is larger than that.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
