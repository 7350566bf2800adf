package store

import "context"

// shrunk is how a compaction has left the file.
type shrunk struct{ file, free, cost int64 }

// changed reports whether enough of the file has changed since.
func (l *shrunk) changed(file, free, cost int64) bool {
	return l == nil || file-l.file >= l.file/changedPart || free-l.free >= file/changedPart || l.cost-cost > l.cost/changedPart
}

// need returns how large a compacted file would be about, in which the entries cost that much.
func (l *shrunk) need(cost int64) int64 {
	if l == nil || l.file-l.free <= l.cost {
		return cost
	}
	more := float64(l.file - l.free - l.cost)
	if cost < l.cost {
		more *= float64(cost) / float64(l.cost)
	}
	return cost + int64(more)
}

// Passes reports whether the file is larger than so many times what its entries cost, and some room, and compaction
// would help.
func (s *Store) Passes(file, cost int64, times float64, room int64) bool {
	return float64(file) > times*float64(cost)+float64(room) &&
		float64(file) > gainTimes*float64(s.shrunk.Load().need(cost))+gainRoom
}

const (
	// None of that is worth anything where a copy would be hardly smaller, because what the file holds needs more than
	// it counts. By how much more the last copy has shown.
	gainTimes = 1.25
	gainRoom  = 2 << 20

	// After a compaction none follows by itself until an eighth of the file has changed, by pages or by cost: the next
	// would gain what the last one left.
	changedPart = 8
)

// Shrink replaces the file by a copy without free pages, and notes how that has left it. See Compact for progress.
func (s *Store) Shrink(ctx context.Context, progress func(int64)) (before, after int64, err error) {
	before, _, err = s.Measure()
	if err == nil {
		err = s.CheckRoom()
	}
	if err == nil {
		err = s.Compact(ctx, s.Dir(), false, progress)
	}
	if err == nil {
		_, free := s.Free()
		var need int64
		if after, need, err = s.Measure(); err == nil {
			s.shrunk.Store(&shrunk{file: after, free: free, cost: need})
		}
	}
	return before, after, err
}

// Changed reports whether enough of the file has changed since the last compaction, if there was one.
func (s *Store) Changed(file, free, cost int64) bool {
	return s.shrunk.Load().changed(file, free, cost)
}

// CannotMove reports whether the file has been found to be one whose name nothing else can take.
func (s *Store) CannotMove() bool {
	h := s.current.Load()
	return h != nil && s.unmoving.Load() == h
}
