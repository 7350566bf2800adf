package journal

import "time"

// Stats is a snapshot of a journal.
type Stats struct {
	UsedBytes    int64         // from the oldest segment that is not released to the end of the journal, in bytes
	FileBytes    int64         // of the file; 0 before the first Append
	Segments     int           // made
	FreeSegments int           // of those
	Appends      uint64        // log records
	AppendBytes  uint64        // of these log records, in bytes
	Flushes      uint64        // of the file, however many callers shared them
	FlushTime    time.Duration // in all flushes
	LastFlush    time.Duration // how long the last one took
	Last         uint64        // sequence
	Flushed      uint64        // sequence up to which all is on disk
	Released     uint64        // sequence up to which the store has all
	Mapped       bool          // what is written is stored to a map
}

// Used returns how many bytes of the file hold what is not released, in whole segments. It takes no lock.
func (j *Journal) Used() int64 { return j.used.Load() }

// Free returns how many bytes are left for what is not released yet, in whole segments beside that which is written. It
// takes no lock.
func (j *Journal) Free() int64 { return int64(j.capacity)*int64(j.opt.SegmentBytes) - j.used.Load() }

// Stats returns a snapshot. It does not wait for the disk unless an Append does.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	s := Stats{
		FileBytes: j.fileSize.Load(), Segments: len(j.segments), FreeSegments: len(j.free),
		Appends: j.appends, AppendBytes: j.bytes, Last: j.last.Load(), Released: j.released,
	}
	if n := len(j.live); n > 0 {
		s.UsedBytes = int64(n-1)*int64(j.opt.SegmentBytes) + int64(j.off)
		s.Mapped = j.window.mem != nil || j.live[n-1].mem != nil
	}
	j.mu.Unlock()
	f := &j.flush
	f.mu.Lock()
	s.Flushes, s.FlushTime, s.LastFlush, s.Flushed = f.count, f.spent, f.latest, j.flushed.Load()
	f.mu.Unlock()
	return s
}
