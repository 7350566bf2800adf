package inspect

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

// A survey walks over all entries, a little with each request, so that a page that is looked at all the time takes a
// part of the time that does not matter, whatever the size of the cache.
const (
	surveyStep  = 15 * time.Millisecond // of the walk, with each request
	surveyFirst = 60 * time.Millisecond // with the first one
	surveyEvery = time.Second           // between two steps at least
	surveyPause = 20 * time.Second      // from the end of one walk to the beginning of the next
	surveyTop   = 10
)

// lifetimes are the upper bounds of the bars of the picture of lifetimes. After them come longer ones, and none.
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

// survey holds the last walk that came to its end, and the one that is on its way.
type survey struct {
	mu    sync.Mutex // held for the length of a step
	last  *walk
	now   *walk
	moved time.Time // when the last step ended
}

// walk is what was seen of the entries so far.
type walk struct {
	names  []string // of buckets that are still to be walked over; the first of them is on its way
	after  string   // the last key that was looked at
	ended  time.Time
	looked int64
	lives  []int64 // entries by what is left of their lifetime, as lifetimes has it, longer and none behind it
	top    ranking
}

// step walks on, if it is time to, and returns the best that there is.
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

// step walks on until the deadline, and reports whether the walk is at its end.
func (k *walk) step(db *keepcache.DB, deadline time.Time) bool {
	now, n := time.Now(), 0
	for len(k.names) > 0 {
		for e, err := range db.Bucket(k.names[0]).Scan(&keepcache.ScanOptions{After: k.after}) {
			if err != nil && !(errors.Is(err, keepcache.ErrCorrupt) && e.Key != "") {
				return true // it is closed, or cannot be read; what is seen is seen
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
			return false // also where all of them are empty
		}
	}
	return true
}

// lifeOf returns the bar of the picture to which an entry belongs.
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

// biggest returns the entries that were seen with the largest values and still are there, as far as that is known: one
// with a large value is not read for that.
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
