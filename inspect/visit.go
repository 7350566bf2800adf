package inspect

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/keepcache/keepcache/internal/wire"
)

// Bounds of what all answers of a handler take together, whoever asks for them and however slowly they are read.
const (
	// mostAnswers is how many answers are under way, streams aside.
	mostAnswers = 64

	// smallAnswer is what an answer may take without being counted: mostAnswers of them are little.
	smallAnswer = 64 << 10

	// heldBytes is what larger answers take, until they are read.
	heldBytes = 32 << 20

	// heldWait is how long an answer waits for others to be read.
	heldWait = time.Second

	// largeValue is the text of a value from which on there is one at a time, and never whole in memory.
	largeValue = 1 << 20

	// largeGarbage is how many bytes of copies of large values may be garbage before it is collected. The collector itself
	// would let them grow to as much as the program uses.
	largeGarbage = 24 << 20

	// leastRate is how many bytes a second a client must take, or send, at least.
	leastRate = 1 << 20
)

// slotKey names an entry.
type slotKey struct{ bucket, key string }

// bounds are the tokens that those bounds are kept with.
type bounds struct {
	answers chan struct{} // one for each answer
	gate    chan struct{} // one for whoever reads the cache and has what he found in memory
	large   chan struct{} // one for a large value, read or written
	held    chan struct{} // one for each smallAnswer bytes of larger answers
	streams chan struct{} // one for each event stream
	long    chan struct{} // one for long work

	copied int     // bytes of large values since garbage was collected; protected by the gate
	sent   slotKey // the large value that is being sent; protected by the gate
}

func newBounds(streams int) bounds {
	return bounds{
		answers: make(chan struct{}, mostAnswers), gate: make(chan struct{}, 1), large: make(chan struct{}, 1),
		held: make(chan struct{}, heldBytes/smallAnswer), streams: make(chan struct{}, streams), long: make(chan struct{}, 1),
	}
}

// visit is a request on its way to its answer, with the tokens that it has.
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

// take takes a token that is free, or returns ErrBusy, and gives it back with the visit.
func (v *visit) take(tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		v.done = append(v.done, func() { <-tokens })
		return nil
	default:
		return wire.ErrBusy
	}
}

// within gives the work a time, and ends it when the cache is closed.
func (v *visit) within(d time.Duration) {
	ctx, stop := context.WithCancel(v.ctx)
	if d > 0 {
		ctx, stop = context.WithTimeout(v.ctx, d)
	}
	unhook := context.AfterFunc(v.s.closing, stop)
	v.ctx = ctx
	v.done = append(v.done, stop, func() { unhook() })
}

// end gives all tokens back.
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

// enter waits until nobody else reads the cache.
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

// late is the error of a visit whose time was over while it waited for others.
func (v *visit) late() error {
	if v.r.Context().Err() != nil || v.s.closing.Err() != nil {
		return v.ctx.Err()
	}
	return fmt.Errorf("%w: others are served first", wire.ErrBusy)
}

// alone reports whether this visit may have a large value. If not, another has one: the value that was read is to be
// forgotten, and read again after turn.
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

// turn lets the others in and waits until this visit may have a large value. Meanwhile it holds nothing of the cache.
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

// collect has the garbage of large copies collected before there is another. It is called inside the gate.
func (v *visit) collect() {
	if v.s.copied >= largeGarbage {
		v.s.copied = 0
		runtime.GC()
	}
}

// copied counts what a look has copied out of the file.
func (v *visit) copied(size int) {
	if size >= largeValue {
		v.s.copied += size
	}
}

// hold counts an answer that is about to be sent, and leaves the gate.
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
			return fmt.Errorf("%w: others have not read their answers yet", wire.ErrBusy)
		case <-v.ctx.Done():
			return v.late()
		}
	}
	return nil
}

// patient returns a writer of an answer of so many bytes to a client who must take them within a time, and something now
// and then.
func (v *visit) patient(bytes int64) *patient {
	return &patient{w: v.w, control: v.control, until: time.Now().Add(streamStall + rateTime(bytes))}
}

// rateTime is how long so many bytes may take.
func rateTime(bytes int64) time.Duration {
	return time.Duration(bytes/leastRate+1) * time.Second
}

type patient struct {
	w       http.ResponseWriter
	control *http.ResponseController
	until   time.Time // zero: no end, as long as the client takes something
	n       int64
}

func (p *patient) Write(b []byte) (n int, err error) {
	const piece = 64 << 10
	for len(b) > 0 && err == nil {
		deadline := time.Now().Add(streamStall)
		if !p.until.IsZero() && p.until.Before(deadline) {
			deadline = p.until
		}
		_ = p.control.SetWriteDeadline(deadline) // not every server can; then its own holds
		var k int
		k, err = p.w.Write(b[:min(len(b), piece)])
		n, p.n, b = n+k, p.n+int64(k), b[k:]
	}
	return n, err
}
