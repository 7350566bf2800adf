package journal

import (
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/ground"
)

// flusher is the state of the group flush. Flushes are counted: a caller whose log record the running one no longer
// covers waits for the next, which one of these callers leads.
type flusher struct {
	mu      sync.Mutex     // protects what follows
	done    [2]ground.Cond // done[k%2] ends the wait for flush k
	waiting [2]int         // how many wait for it
	running bool
	turn    uint64 // number of the running or the last flush
	target  uint64 // sequence that the running flush covers
	freed   int    // how many waited for the last flush
	closed  bool
	named   bool // the directory is synced
	count   uint64
	spent   time.Duration
	latest  time.Duration
}

func (f *flusher) init(g *ground.Ground) {
	for i := range f.done {
		f.done[i] = ground.Cond{L: &f.mu, Ground: g}
	}
}

// close waits for the running flush, if there is one, and lets no other begin.
func (f *flusher) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for f.running {
		f.done[f.turn%2].Wait()
	}
	f.wake()
}

// renamed says that the file has another name now. Until that is on disk, nothing in the file is there for certain.
func (j *Journal) renamed() {
	j.flush.mu.Lock()
	defer j.flush.mu.Unlock()
	j.flush.named = false
	j.flushed.Store(j.opt.After)
}

func (f *flusher) wake() {
	f.done[0].Broadcast()
	f.done[1].Broadcast()
}

// Flush returns when everything that was appended up to the sequence seq is on disk. Callers that wait at the same time
// share flushes: one does it for all, and those who come while it runs share the next.
//
// A flush that fails is not tried again, because the system may have dropped the pages that it could not write: this
// and every later call of Append and Flush returns an error that matches ErrFailed and the cause. What an earlier flush
// covered is still on disk, and Flush returns nil for it.
func (j *Journal) Flush(seq uint64) error {
	if seq <= j.flushed.Load() {
		return nil
	}
	f := &j.flush
	f.mu.Lock()
	defer f.mu.Unlock()
	seq = min(seq, j.last.Load())
	for {
		if seq <= j.flushed.Load() {
			return nil
		}
		if err := j.Err(); err != nil {
			f.wake() // who was woken to lead and does not must pass it on
			return err
		}
		switch {
		case f.closed:
			return ErrClosed
		case !f.running:
			j.lead()
		case seq <= f.target:
			f.wait(f.turn)
		default:
			f.wait(f.turn + 1)
		}
	}
}

// wait waits for the end of a flush. mu is held.
func (f *flusher) wait(turn uint64) {
	f.waiting[turn%2]++
	f.done[turn%2].Wait()
}

const (
	gatherPart = 4   // the part of the last flush's time for which the next one waits for writers at the most
	gatherMost = 256 // how often it lets others run meanwhile
)

// gather lets those append whose flush has just ended, so that they have a share in the next one. Without that there
// are two halves of the writers that flush in turns. It waits until as many have come as there were, the leader aside,
// and for a part of the time of a flush at most; a lone writer is not waited for. mu is held, but not meanwhile.
func (f *flusher) gather() {
	if f.freed == 0 {
		return
	}
	most := f.freed + f.waiting[f.turn%2] - 1 // one of these leads, and waits no more
	f.target = math.MaxUint64                 // whoever comes takes part
	start := time.Now()
	for range gatherMost {
		if f.closed || f.waiting[f.turn%2] >= most || time.Since(start) >= f.latest/gatherPart {
			break
		}
		f.mu.Unlock()
		runtime.Gosched()
		f.mu.Lock()
	}
}

// lead does one flush. f.mu is held, but not during the flush.
func (j *Journal) lead() {
	f := &j.flush
	f.running = true
	f.turn++
	f.gather()
	f.target = j.last.Load()
	named := f.named
	f.mu.Unlock()

	size := j.fileSize.Load()
	start := time.Now()
	err := j.prepare()
	if err == nil {
		err = j.file.Datasync()
	}
	if err == nil && !named {
		err = j.opt.Dir.Sync(j.path)
	}
	took := time.Since(start)
	if err == nil {
		err = j.file.Intact(size)
	}

	f.mu.Lock()
	f.running = false
	f.freed, f.waiting[f.turn%2] = f.waiting[f.turn%2], 0
	f.count++
	f.spent += took
	f.latest = took
	if err != nil {
		j.fail(err)
		f.wake()
		return
	}
	f.named = true
	j.flushed.Store(f.target)
	f.done[f.turn%2].Broadcast()
	f.done[(f.turn+1)%2].Signal() // the next leader
}

// letGoLeast is from how many pages on it is cheaper to let go of them at once.
const letGoLeast = 4

// prepare gets the file ready to be flushed. It takes the pages that are full and not on disk yet, and those of the
// window, out of the page tables. Before the system writes a page, it makes it read-only wherever it is mapped, one
// page at a time, and each time interrupts every processor that runs this process and waits for it: measured, a quarter
// of all processor time while sets go on, and the longest waits of a set. Pages that are not mapped are spared that,
// and letting go of all of them together costs one such interruption.
func (j *Journal) prepare() error {
	page := os.Getpagesize()
	var spans [][]byte
	j.mu.Lock()
	err := j.settle()
	if len(j.window.mem) >= letGoLeast*page {
		spans = append(spans, j.window.mem)
	}
	for _, s := range j.segments {
		end := s.stored / page * page
		if s.mem != nil && end-s.letGo >= letGoLeast*page {
			spans = append(spans, s.mem[s.letGo:end])
			s.letGo = end
		}
	}
	j.mu.Unlock()
	for _, mem := range spans {
		j.file.LetGo(mem) // a store to it meanwhile brings the page back
	}
	return err
}
