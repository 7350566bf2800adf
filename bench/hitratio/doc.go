// Package hitratio replays traces of a cache against policies that choose what to evict, and counts hits. It is how the
// policies of the byte budget and of the memory tier were chosen. The benchmarks around it write the tables of it,
// hitratio.md:
//
//	go run . -work hitratio
//
// Every trace is a list of keys. A key that is not there is a miss, after which it is stored, as a program
// that caches something does. Entries are of one size, so a capacity is a number of entries.
package hitratio

// Policy is a cache of a fixed capacity, of keys alone.
type Policy interface {
	// Access looks a key up, stores it if it is absent, and reports whether it was there.
	Access(key uint32) (hit bool)
}

// Ratio replays a trace and returns the part of the accesses that hit, in percent.
func Ratio(p Policy, trace []uint32) float64 {
	hits := 0
	for _, key := range trace {
		if p.Access(key) {
			hits++
		}
	}
	return 100 * float64(hits) / float64(len(trace))
}
