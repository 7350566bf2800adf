package inspect

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/keepcache/keepcache/internal/wire"
)

// Bounds of the memory for all answers of a handler together, whatever the clients ask for and however slowly they
// read.
const (
	// mostAnswers is the maximum number of requests in progress, apart from streams.
	mostAnswers = 64

	// smallAnswer is the size up to which answers are not counted: mostAnswers of them need little memory.
	smallAnswer = 64 << 10

	// heldBytes is the memory for larger answers, until clients have read them.
	heldBytes = 32 << 20

	// heldWait is how long an answer waits until clients have read others.
	heldWait = time.Second

	// largeValue is the size of text from which a value is large. Only one large value at a time is sent, and never
	// whole in memory.
	largeValue = 1 << 20

	// largeGarbage is how many bytes of copied large values may become garbage before a collection is forced. The
	// collector itself would let the garbage grow to the size of the program's heap.
	largeGarbage = 24 << 20

	// leastRate is the minimum number of bytes per second that a client must read or send.
	leastRate = 1 << 20
)

// slotKey names an entry.
type slotKey struct{ bucket, key string }

// bounds are the semaphores that enforce these bounds.
type bounds struct {
	answers chan struct{} // a token for each answer
	gate    chan struct{} // one token, for the visit that reads the cache and keeps the result in memory
	large   chan struct{} // one token, for a large value that is read or written
	held    chan struct{} // a token for each smallAnswer bytes of larger answers
	streams chan struct{} // a token for each event stream
	long    chan struct{} // one token, for long work

	copied int     // bytes of large values since the last forced collection; protected by the gate
	sent   slotKey // the large value that is being sent; protected by the gate
}

func newBounds(streams int) bounds {
	return bounds{
		answers: make(chan struct{}, mostAnswers), gate: make(chan struct{}, 1), large: make(chan struct{}, 1),
		held: make(chan struct{}, heldBytes/smallAnswer), streams: make(chan struct{}, streams), long: make(chan struct{}, 1),
	}
}

// visit is a request in progress, with the tokens that it holds.
type visit struct {
	s   *server
	w   http.ResponseWriter
	r   *http.Request
	ctx context.Context // ends the work

	control     *http.ResponseController
	gate, large bool
	held        int
	done        []func()
}

func (s *server) begin(w http.ResponseWriter, r *http.Request) *visit {
	return &visit{s: s, w: w, r: r, ctx: r.Context(), control: http.NewResponseController(w)}
}

// take takes a free token, or returns ErrBusy. The token is returned at the end of the visit.
func (v *visit) take(tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		v.done = append(v.done, func() { <-tokens })
		return nil
	default:
		return wire.ErrBusy
	}
}

// within sets a timeout for the work. The work also ends when the cache is closed.
func (v *visit) within(d time.Duration) {
	ctx, stop := context.WithCancel(v.ctx)
	if d > 0 {
		ctx, stop = context.WithTimeout(v.ctx, d)
	}
	unhook := context.AfterFunc(v.s.closing, stop)
	v.ctx = ctx
	v.done = append(v.done, stop, func() { unhook() })
}

// end returns all tokens.
func (v *visit) end() {
	v.leave()
	for range v.held {
		<-v.s.held
	}
	if v.held = 0; v.large {
		v.large = false
		<-v.s.large
	}
	for i := len(v.done) - 1; i >= 0; i-- {
		v.done[i]()
	}
	v.done = nil
}

// enter waits until no other visit reads the cache.
func (v *visit) enter() error {
	if v.gate {
		return nil
	}
	select {
	case v.s.gate <- struct{}{}:
		v.gate = true
		return nil
	case <-v.ctx.Done():
		return v.late()
	}
}

func (v *visit) leave() {
	if v.gate {
		v.gate = false
		<-v.s.gate
	}
}

// late is the error of a visit whose time ran out while it waited for others.
func (v *visit) late() error {
	if v.r.Context().Err() != nil || v.s.closing.Err() != nil {
		return v.ctx.Err()
	}
	return fmt.Errorf("%w: timed out while waiting for other requests", wire.ErrBusy)
}

// alone reports whether this visit may hold a large value. If another visit holds one, the caller must drop the value
// that it read, and read it again after turn.
func (v *visit) alone() bool {
	if v.large {
		return true
	}
	select {
	case v.s.large <- struct{}{}:
		v.large = true
	default:
	}
	return v.large
}

// turn leaves the gate and waits until this visit may hold a large value. Meanwhile the visit keeps nothing of the
// cache in memory.
func (v *visit) turn() error {
	if v.alone() {
		return nil
	}
	v.leave()
	select {
	case v.s.large <- struct{}{}:
		v.large = true
		return nil
	case <-v.ctx.Done():
		return v.late()
	}
}

// collect forces a garbage collection before there is too much garbage of large copies. It is called inside the gate.
func (v *visit) collect() {
	if v.s.copied >= largeGarbage {
		v.s.copied = 0
		runtime.GC()
	}
}

// copied counts bytes that a read has copied out of the file.
func (v *visit) copied(size int) {
	if size >= largeValue {
		v.s.copied += size
	}
}

// hold reserves memory for an answer that is about to be sent, and leaves the gate.
func (v *visit) hold(bytes int) error {
	defer v.leave()
	if bytes <= smallAnswer {
		return nil
	}
	var late <-chan time.Time
	for range min((bytes+smallAnswer-1)/smallAnswer, cap(v.s.held)) {
		select {
		case v.s.held <- struct{}{}:
			v.held++
			continue
		default:
		}
		if late == nil {
			timer := time.NewTimer(heldWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case v.s.held <- struct{}{}:
			v.held++
		case <-late:
			return fmt.Errorf("%w: other clients have not read their answers yet", wire.ErrBusy)
		case <-v.ctx.Done():
			return v.late()
		}
	}
	return nil
}

// patient returns a writer for an answer of so many bytes. The client must read all of them within a time, and must not
// stop reading for long.
func (v *visit) patient(bytes int64) *patient {
	return &patient{w: v.w, control: v.control, until: time.Now().Add(streamStall + rateTime(bytes))}
}

// rateTime returns how long a transfer of so many bytes may take.
func rateTime(bytes int64) time.Duration {
	return time.Duration(bytes/leastRate+1) * time.Second
}

type patient struct {
	w       http.ResponseWriter
	control *http.ResponseController
	until   time.Time // zero for no limit, as long as the client keeps reading
	n       int64
}

func (p *patient) Write(b []byte) (n int, err error) {
	const piece = 64 << 10
	for len(b) > 0 && err == nil {
		deadline := time.Now().Add(streamStall)
		if !p.until.IsZero() && p.until.Before(deadline) {
			deadline = p.until
		}
		_ = p.control.SetWriteDeadline(deadline) // if the server cannot do this, its own timeout applies
		var k int
		k, err = p.w.Write(b[:min(len(b), piece)])
		n, p.n, b = n+k, p.n+int64(k), b[k:]
	}
	return n, err
}
