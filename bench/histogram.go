package main

import (
	"math/bits"
	"time"
)

// histogram counts durations with an error of at most 1/64, at the cost of one increment each.
type histogram struct {
	counts [histogramSize]uint64
	total  uint64
	most   time.Duration
}

// Each power of two has 64 slots; durations below 128 ns have one each.
const (
	slotBits      = 6
	histogramSize = (64 - slotBits) << slotBits
)

func (h *histogram) add(d time.Duration) {
	h.counts[slotOf(d)]++
	h.total++
	h.most = max(h.most, d)
}

func slotOf(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-slotBits-1, 0)
	return shift<<slotBits + int(v>>shift)
}

// durationOf returns the middle of a slot.
func durationOf(slot int) time.Duration {
	if slot < 2<<slotBits {
		return time.Duration(slot)
	}
	shift := slot>>slotBits - 1
	low := (slot&(1<<slotBits-1) + 1<<slotBits) << shift
	return time.Duration(low + 1<<shift/2)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.most = max(h.most, o.most)
}

// quantile returns the duration that the given part of all do not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += n; seen > rank {
			return min(durationOf(i), h.most)
		}
	}
	return h.most
}
