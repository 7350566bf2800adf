package store

import "context"

// compacted is the state of the file after a compaction, in bytes.
type compacted struct{ file, free, cost int64 }

// changed reports whether enough of the file has changed since.
func (l *compacted) changed(file, free, cost int64) bool {
	return l == nil || file-l.file >= l.file/changedShare || free-l.free >= file/changedShare ||
		l.cost-cost > l.cost/changedShare
}

// need estimates the size of a compacted file whose entries have the given cost.
func (l *compacted) need(cost int64) int64 {
	if l == nil || l.file-l.free <= l.cost {
		return cost
	}
	more := float64(l.file - l.free - l.cost)
	if cost < l.cost {
		more *= float64(cost) / float64(l.cost)
	}
	return cost + int64(more)
}

// WorthCompacting reports whether the file is larger than times its entries' cost plus room, and a compaction would
// help.
func (s *Store) WorthCompacting(file, cost int64, times float64, room int64) bool {
	return float64(file) > times*float64(cost)+float64(room) &&
		float64(file) > minGainFactor*float64(s.lastCompaction.Load().need(cost))+minGain
}

const (
	// A compaction must make the file smaller by these. What the file holds may need more than its cost says. The last
	// compaction has shown by how much.
	minGainFactor = 1.25
	minGain       = 2 << 20

	// After a compaction no automatic one follows until an eighth of the file has changed, by pages or by cost. Otherwise
	// the next would gain nothing more.
	changedShare = 8
)

// Shrink replaces the file by a copy without free pages, and notes the size of the result. See Compact for progress.
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
			s.lastCompaction.Store(&compacted{file: after, free: free, cost: need})
		}
	}
	return before, after, err
}

// Changed reports whether enough of the file has changed since the last compaction. It returns true if there was none.
func (s *Store) Changed(file, free, cost int64) bool {
	return s.lastCompaction.Load().changed(file, free, cost)
}

// IsMountPoint reports whether the file was found to be a mount point, so that nothing else can take its name.
func (s *Store) IsMountPoint() bool {
	h := s.current.Load()
	return h != nil && s.mountPoint.Load() == h
}
