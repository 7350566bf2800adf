package format

import (
	"math"
	"time"
)

// Times are kept as moments, in unix milliseconds from 0 on, and lengths of time as spans, in milliseconds. All sums
// and differences of them are made here, and saturate: what is too far away is as far away as can be, and never in the
// past. The moment of what has no end is Never, and nothing is longer than the span of that value.

// Forever is the lifetime of what has no end.
const Forever = time.Duration(math.MaxInt64)

// MaxDeadline is the latest deadline, in the year 10889: an index row has 48 bits for it.
const MaxDeadline = rowMask - 1

// Millis returns t in unix milliseconds. A clock before 1970 reads as 1970, because the expiry index
// orders deadlines as unsigned numbers.
func Millis(t time.Time) int64 { return max(t.UnixMilli(), 0) }

// Time is the inverse of Millis; Never is the zero time.
func Time(ms int64) time.Time {
	if ms == Never {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// DeadlineAt returns the moment of a deadline that is given as a point in time, rounded up; the zero time is Never.
func DeadlineAt(until time.Time) int64 {
	switch {
	case until.IsZero():
		return Never
	case until.Before(time.UnixMilli(1)):
		return 1 // 0 is none in forms that others read
	case until.After(time.UnixMilli(MaxDeadline - 1)):
		return MaxDeadline
	}
	ms := until.UnixMilli()
	if until.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

// Stamp returns the moment at which something was done, rounded down; the zero time is 0.
func Stamp(at time.Time) int64 {
	switch {
	case at.Before(time.UnixMilli(0)): // the zero time too
		return 0
	case at.After(time.UnixMilli(MaxDeadline)):
		return MaxDeadline
	}
	return at.UnixMilli()
}

// Deadline returns the moment at which an entry written now with lifetime ttl is gone.
// It is rounded up, and a lifetime too long for a moment saturates instead of landing in the past.
func Deadline(now time.Time, ttl time.Duration) int64 {
	if ttl == Forever {
		return Never
	}
	const ms = int64(time.Millisecond)
	part := int64(now.Nanosecond())%ms + int64(ttl)%ms
	whole := int64(ttl)/ms + (part+ms-1)/ms
	start := Millis(now)
	return min(start, MaxDeadline-whole) + whole
}

// Prolong returns the moment a span of 0 or more after another one.
func Prolong(moment, span int64) int64 {
	if moment == Never || span >= MaxDeadline {
		return Never
	}
	return max(moment, min(moment, MaxDeadline-span)+span)
}

// Between returns the span from one moment to another. It is negative where the second is the earlier one, and Never
// where that has no end.
func Between(from, to int64) int64 {
	switch span := to - from; {
	case from == to:
		return 0
	case to == Never:
		return Never
	case from < 0 && span < to:
		return Never
	case from > 0 && span > to:
		return -Never
	default:
		return span
	}
}

// Span returns a duration of 0 or more as a span, rounded up.
func Span(d time.Duration) int64 {
	if d == Forever {
		return Never
	}
	return int64(d/time.Millisecond) + int64(min(d%time.Millisecond, 1))
}

// Duration returns a span of 0 or more as a duration, and Forever for Never alone.
func Duration(span int64) time.Duration {
	switch {
	case span == Never:
		return Forever
	case span > int64(Forever/time.Millisecond):
		return Forever - 1
	}
	return time.Duration(span) * time.Millisecond
}

// Remaining returns how long from now until the deadline, or Forever.
func Remaining(now time.Time, deadline int64) time.Duration {
	if deadline == Never {
		return Forever
	}
	return min(time.UnixMilli(deadline).Sub(now), Forever-1) // Sub saturates
}

// IsPast reports whether a part, from 0 to 1, of the span between two moments is over. Of what has no end it never is.
func IsPast(from, to, now int64, part float64) bool {
	return to != Never && float64(Between(from, now)) >= part*float64(Between(from, to))
}

// RowGrain and RowPart bound how much earlier, in milliseconds, the row of an entry is put into the expiry index than
// the entry is gone: by less than RowGrain, and by less than that part of what is left of its life. Rows then share a
// few times, and lie in the order of their keys at each, as the entries do in the transactions of a commit: each
// transaction puts its rows side by side. With times to the millisecond they would lie all over the pages of the
// seconds in which their entries were written, and every transaction would write all of these pages anew.
//
// Measured with 200,000 entries of 250 bytes that came in random order in 20 seconds and four commits: 211 MB written,
// and pages of the index that are full to 0.87. At a grain of one it was 401 MB and 0.38, of 128 225 MB and 0.81, of
// 4096 212 MB and 0.79. The price is that an expired entry stays in the file for so much longer.
const (
	RowGrain = 1024 // a power of two, as all grains are, so that entries with longer and shorter lives share times
	RowPart  = 64
)

// RowTime returns the time of a row that is put at now, for an entry that is gone at staleUntil. While the entry lives
// the row is not due for certain.
func RowTime(staleUntil, now int64) int64 {
	if staleUntil == Never {
		return Never
	}
	grain := int64(RowGrain)
	for left := Between(now, staleUntil); grain > 1 && grain > left/RowPart; {
		grain /= 2
	}
	return staleUntil - staleUntil%grain
}

// Overdue returns for how long the entry of a row has been gone for certain, unless its life was prolonged.
func Overdue(row int64, now time.Time) time.Duration {
	if row > Millis(now)-RowGrain {
		return 0
	}
	return now.Sub(time.UnixMilli(row + RowGrain)) // saturates
}
