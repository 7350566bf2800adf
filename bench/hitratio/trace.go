package hitratio

import (
	"math"
	"math/rand/v2"
	"sort"
)

// Trace is a list of keys below Keys, in the order in which they are asked for.
type Trace struct {
	Name     string
	Keys     uint32
	Accesses []uint32
}

// Traces returns the traces of the table, over the given number of keys. They are the same in each run.
func Traces(keys uint32) []Trace {
	n := int(keys) * 20
	return []Trace{
		{"Zipf 0.8", keys, zipf(keys, 0.8, n, 1)},
		{"Zipf 1.0", keys, zipf(keys, 1.0, n, 2)},
		{"Zipf 1.0 and a scan", keys * 2, scanned(keys, n, 3)},
		{"shifting hot set", keys, shifting(keys, n, 4)},
	}
}

// Loop returns a trace that goes round and round over a few more keys than fit into the given capacity.
func Loop(capacity uint32) Trace {
	keys := capacity + capacity/10 + 1
	accesses := make([]uint32, int(keys)*30)
	for i := range accesses {
		accesses[i] = uint32(i) % keys
	}
	return Trace{"loop 10 % larger", keys, accesses}
}

// zipf draws n keys, the one of rank r with a weight of 1/r^s. Ranks are spread over the order of the keys.
func zipf(keys uint32, s float64, n int, seed uint64) []uint32 {
	r := rand.New(rand.NewPCG(seed, seed))
	sums := make([]float64, keys)
	total := 0.0
	for i := range sums {
		total += math.Pow(float64(i+1), -s)
		sums[i] = total
	}
	spread := r.Perm(int(keys))
	trace := make([]uint32, n)
	for i := range trace {
		trace[i] = uint32(spread[min(sort.SearchFloat64s(sums, r.Float64()*total), int(keys)-1)])
	}
	return trace
}

// scanned is Zipf, of which every fifth access belongs to a walk over keys that nobody else asks for, in
// bursts of a twentieth of the keys.
func scanned(keys uint32, n int, seed uint64) []uint32 {
	base := zipf(keys, 1.0, n, seed)
	burst := int(keys / 20)
	var trace []uint32
	next := uint32(0)
	for i := 0; len(trace) < n; i += 4 * burst {
		trace = append(trace, base[i:min(i+4*burst, n)]...)
		for range burst {
			trace = append(trace, keys+next)
			next = (next + 1) % keys
		}
	}
	return trace[:n]
}

// shifting has a hot set of a tenth of the keys, with Zipf 0.9 in it, that gets nine of ten accesses and moves
// on by half of itself twenty times.
func shifting(keys uint32, n int, seed uint64) []uint32 {
	hot := keys / 10
	in := zipf(hot, 0.9, n, seed)
	r := rand.New(rand.NewPCG(seed, seed+1))
	spread := r.Perm(int(keys))
	trace := make([]uint32, n)
	for i := range trace {
		at := r.Uint32N(keys)
		if r.IntN(10) > 0 {
			at = (in[i] + uint32(i*20/n)*hot/2) % keys
		}
		trace[i] = uint32(spread[at])
	}
	return trace
}
