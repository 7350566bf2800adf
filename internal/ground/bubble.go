package ground

import "time"

// InBubble reports whether the one time was read in a bubble of testing/synctest and the other, of about the same
// moment, outside. The clocks of bubbles begin in the year 2000; nothing else tells where a goroutine is.
func InBubble(inside, outside time.Time) bool {
	return outside.Round(0).Sub(inside.Round(0)) > 5*365*24*time.Hour
}

// Poll calls done again and again until it returns true, and reports false if it did not within the given time. It is
// for callers in a bubble that cannot wait for a channel because that belongs to another place: such a wait stops the
// clock of their bubble.
func Poll(most time.Duration, done func() bool) bool {
	for pause := pollFirst; !done(); pause = min(2*pause, PollMost) {
		if most <= 0 {
			return false
		}
		time.Sleep(min(pause, most))
		most -= pause
	}
	return true
}

// PollMost is the longest pause of Poll.
const PollMost = time.Millisecond

// pollFirst is the first. The clock of a bubble stands while somebody in it has something to do, so the first may be
// short.
const pollFirst = time.Microsecond
