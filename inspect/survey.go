package inspect

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

// A survey scans all entries, in a short step with each request. So a page that is always open takes little time,
// whatever the size of the cache.
const (
	surveyStep  = 15 * time.Millisecond // the length of a step
	surveyFirst = 60 * time.Millisecond // the length of the first step
	surveyEvery = time.Second           // the minimum time between two steps
	surveyPause = 20 * time.Second      // from the end of one scan to the start of the next
	surveyTop   = 10
)

// lifetimes are the upper bounds of the bars in the chart of lifetimes. Two more bars are for longer lifetimes and for
// no expiry.
var lifetimes = []struct {
	bound time.Duration
	label string
}{
	{time.Minute, "1m"},
	{10 * time.Minute, "10m"},
	{time.Hour, "1h"},
	{6 * time.Hour, "6h"},
	{24 * time.Hour, "1d"},
	{7 * 24 * time.Hour, "7d"},
	{30 * 24 * time.Hour, "30d"},
}

// survey holds the last complete scan, and the current one.
type survey struct {
	mu    sync.Mutex // held for the length of a step
	last  *walk
	now   *walk
	moved time.Time // when the last step ended
}

// walk is the state of a scan and what it has found so far.
type walk struct {
	names  []string // buckets that remain; the first one is being scanned
	after  string   // the last key that was scanned
	ended  time.Time
	looked int64
	lives  []int64 // entries by remaining lifetime: one count for each of lifetimes, then longer ones, then no expiry
	top    ranking
}

// step continues the scan, if it is time to, and returns the latest result.
func (v *survey) step(db *keepcache.DB, entryOf func(string, keepcache.Entry) wire.Entry) (best *walk, whole bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if now.Sub(v.moved) >= surveyEvery && (v.now != nil || v.last == nil || now.Sub(v.last.ended) >= surveyPause) {
		budget := surveyStep
		if v.now == nil {
			names, _ := db.Buckets() // none, if it is closed
			v.now = &walk{names: names, lives: make([]int64, len(lifetimes)+2), top: ranking{most: surveyTop, entryOf: entryOf}}
			if v.last == nil {
				budget = surveyFirst
			}
		}
		if v.now.step(db, now.Add(budget)) {
			v.now.ended = time.Now()
			v.last, v.now = v.now, nil
		}
		v.moved = time.Now()
	}
	if v.last != nil {
		return v.last, true
	}
	if v.now != nil {
		return v.now.copy(), false
	}
	return &walk{lives: make([]int64, len(lifetimes)+2)}, false
}

func (k *walk) copy() *walk {
	c := *k
	c.lives, c.top.entries = slices.Clone(k.lives), slices.Clone(k.top.entries)
	return &c
}

// step continues the scan until the deadline, and reports whether it is complete.
func (k *walk) step(db *keepcache.DB, deadline time.Time) bool {
	now, n := time.Now(), 0
	for len(k.names) > 0 {
		for e, err := range db.Bucket(k.names[0]).Scan(&keepcache.ScanOptions{After: k.after}) {
			if err != nil && !(errors.Is(err, keepcache.ErrCorrupt) && e.Key != "") {
				return true // the cache is closed or cannot be read: keep what was found
			}
			k.after = e.Key
			if err == nil {
				k.looked++
				k.lives[lifeOf(e, now)]++
				k.top.add(k.names[0], e)
			}
			if n += lookBytes/lookEvery + e.Size; n >= lookBytes {
				if n = 0; !time.Now().Before(deadline) {
					return false
				}
			}
		}
		k.names, k.after = k.names[1:], ""
		if n++; n%lookEvery == 0 && !time.Now().Before(deadline) {
			return false // check the time after each bucket, even if all are empty
		}
	}
	return true
}

// lifeOf returns the bar of the chart to which an entry belongs.
func lifeOf(e keepcache.Entry, now time.Time) int {
	if e.ExpiresAt.IsZero() {
		return len(lifetimes) + 1
	}
	left := e.ExpiresAt.Sub(now)
	for i, l := range lifetimes {
		if left < l.bound {
			return i
		}
	}
	return len(lifetimes)
}

// biggest returns the entries with the largest values of the scan that still exist. Entries with large values are not
// read to check that.
func (k *walk) biggest(db *keepcache.DB) (found []wire.Entry) {
	for _, w := range k.top.entries {
		if w.Size < largeValue {
			if _, ok, err := db.Bucket(string(w.Bucket)).Stat(string(w.Key)); err != nil || !ok {
				continue
			}
		} else if w.StaleUntil != 0 && w.StaleUntil <= time.Now().UnixMilli() {
			continue
		}
		found = append(found, w)
	}
	return found
}
