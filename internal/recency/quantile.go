package recency

import "math/bits"

// Quantile knows how the scores that were looked at lately are spread, and so which score is low. It is for one
// goroutine at a time.
//
// It is what keeps hot keys safe that are neighbours: of a run in which all were used more than elsewhere
// nothing needs to go.
type Quantile struct {
	bins  [bins]uint32
	total uint32
}

const (
	binBits = 3             // a bin is an eighth of a power of two wide
	bins    = 17 << binBits // scores have 16 bits
	memory  = 4096          // looks after which older ones count half
	atMost  = 2             // 1/atMost of a run may go
)

// bin returns the bin of a score. Bins are finer where scores are low.
func bin(score uint32) int {
	score = min(score, 1<<16-1)
	n := bits.Len32(score)
	if n <= binBits {
		return int(score)
	}
	return (n-binBits)<<binBits | int(score>>(n-binBits-1))&(1<<binBits-1)
}

// Pick takes the scores of a run, ascending, and returns how many of the first may go so that about the given part
// of all goes: more than that where scores are low, and none where they are high.
func (q *Quantile) Pick(scores []uint32, part float64) (n int) {
	for _, s := range scores {
		q.bins[bin(s)]++
	}
	q.total += uint32(len(scores))
	if q.total > memory {
		q.total = 0
		for i := range q.bins {
			q.bins[i] /= 2
			q.total += q.bins[i]
		}
	}
	level, below := 0, uint32(0)
	for ; level < bins-1; level++ {
		if below += q.bins[level]; float64(below) >= part*float64(q.total) {
			break
		}
	}
	sure := max(int(max(part, 1.0/atMost)*float64(len(scores))), 1)
	likely := max(int(part*float64(len(scores))), 1)
	for n < len(scores) && n < sure && bin(scores[n]) < level {
		n++
	}
	for n < len(scores) && n < likely && bin(scores[n]) == level {
		n++
	}
	return n
}
