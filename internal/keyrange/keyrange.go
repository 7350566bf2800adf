// Package keyrange has ranges of keys, as scans walk them.
package keyrange

import (
	"slices"
	"sort"
	"strings"
)

// Range is the keys from First on that are less than End, and the direction in which they are walked. Keys are not
// empty, so the zero value is all of them, in ascending byte order.
type Range struct {
	First   string // the least key that may be in the range
	End     string // the least key behind the range; empty if it has no end
	Reverse bool   // walk in descending order
}

// Prefix returns the range of the keys that begin with prefix.
func Prefix(prefix string) Range { return Range{First: prefix, End: successor(prefix)} }

// successor returns the least key that is greater than all keys with the prefix, or "" if there is none.
func successor(prefix string) string {
	for n := len(prefix); n > 0; n-- {
		if last := prefix[n-1]; last < 0xff {
			return prefix[:n-1] + string([]byte{last + 1})
		}
	}
	return ""
}

// Narrow leaves the keys that are also in [first, end). An empty end is none.
func (r *Range) Narrow(first, end string) {
	r.First = max(r.First, first)
	if end != "" && (r.End == "" || end < r.End) {
		r.End = end
	}
}

// After leaves the keys that a walk comes to after key, which need not be in the range.
func (r *Range) After(key string) {
	if r.Reverse {
		r.Narrow("", key)
	} else {
		r.Narrow(key+"\x00", "") // the least key that is greater than key
	}
}

// Empty reports whether no key is in the range.
func (r Range) Empty() bool { return r.End != "" && r.First >= r.End }

// Contains reports whether a key is in the range.
func (r Range) Contains(key string) bool { return key >= r.First && (r.End == "" || key < r.End) }

// Precedes reports whether a key lies before the range, in the order of the walk: a walk must not come to it.
func (r Range) Precedes(key string) bool {
	if r.Reverse {
		return r.End != "" && key >= r.End
	}
	return key < r.First
}

// Compare compares two keys in the order of the walk.
func (r Range) Compare(a, b string) int {
	if r.Reverse {
		a, b = b, a
	}
	return strings.Compare(a, b)
}

// Sort sorts keys in the order of the walk.
func (r Range) Sort(keys []string) { slices.SortFunc(keys, r.Compare) }

// Index returns where the keys of the range begin in keys: those of a walk, in its order, of which r is what is left.
func (r Range) Index(keys []string) int {
	return sort.Search(len(keys), func(i int) bool { return r.Contains(keys[i]) })
}
