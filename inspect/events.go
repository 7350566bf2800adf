package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

const (
	// streamPause is how long a stream lets events gather before it sends them together: what a busy cache has to pay
	// for being watched is bounded by the buffer that fills meanwhile, and a person does not see the difference.
	streamPause = 100 * time.Millisecond

	// burst is how many pauses' worth of events may gather: what comes all at once is sent a little later.
	burst = 10

	// turnBytes is what is sent together at most: names may be long.
	turnBytes = 256 << 10

	// streamAlive is how often a stream without events says that it is there.
	streamAlive = 15 * time.Second

	// streamStall is how long a reader may take nothing before its stream ends.
	streamStall = 20 * time.Second
)

// kindNames maps the names of all kinds of events to them.
var kindNames = func() map[string]keepcache.EventKind {
	names := make(map[string]keepcache.EventKind)
	for kind := keepcache.EventKind(1); kind != 0 && kind.String() != "unknown"; kind <<= 1 {
		names[kind.String()] = kind
	}
	return names
}()

// kindsOf reads a list of names of kinds, with commas between them.
func kindsOf(list string) (kinds keepcache.EventKind, err error) {
	if list == "" {
		return 0, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		kind, ok := kindNames[name]
		if !ok {
			return 0, badRequest("there is no kind of events %.50q", name)
		}
		kinds |= kind
	}
	return kinds, nil
}

// events streams events until the request ends.
func (s *server) events(v *visit) (any, error) {
	w, q := v.w, v.r.URL.Query()
	kinds, err := kindsOf(q.Get("kinds"))
	if err != nil {
		return nil, err
	}
	if err := v.take(s.streams); err != nil {
		return nil, fmt.Errorf("%w: there are %d streams already", err, s.o.Streams)
	}
	perTurn := max(1, int(int64(s.o.StreamRate)*int64(streamPause)/int64(time.Second)))
	watch := s.db.Watch(&keepcache.WatchOptions{
		Kinds: kinds, Bucket: q.Get("bucket"), Prefix: q.Get("prefix"), Buffer: burst * perTurn,
	})
	defer watch.Close()

	out := stream{control: v.control, w: w, lines: v.r.Header.Get("Accept") == wire.TypeLines}
	kind := wire.TypeSSE
	if out.lines {
		kind = wire.TypeLines
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Accel-Buffering", "no") // or a proxy in between keeps what it should pass on
	if out.alive(); out.flush() != nil {
		return nil, nil
	}
	tick := time.NewTicker(streamPause)
	defer tick.Stop()
	last, dropped := time.Now(), uint64(0)
	for {
		select {
		case <-v.ctx.Done():
			return nil, nil
		case <-tick.C:
		}
		ended := out.waiting(watch, perTurn)
		if all := watch.Dropped(); all > dropped {
			out.event(wire.Event{Time: time.Now().UnixMilli(), Kind: "dropped", Dropped: all - dropped})
			dropped = all
		}
		if out.buf.Len() == 0 {
			if ended {
				return nil, nil
			}
			if time.Since(last) < streamAlive {
				continue
			}
			out.alive()
		}
		last = time.Now()
		if out.flush() != nil || ended {
			return nil, nil
		}
	}
}

// eventOf puts an event on the wire.
func eventOf(e keepcache.Event) wire.Event {
	w := wire.Event{
		Time: e.Time.UnixMilli(), Kind: e.Kind.String(), Bucket: wire.Name(e.Bucket), Key: wire.Name(e.Key),
		Detail: strings.ToValidUTF8(e.Detail, "\ufffd"), Done: e.Done, Total: e.Total,
	}
	if e.Err != nil {
		w.Err = strings.ToValidUTF8(e.Err.Error(), "\ufffd")
	}
	return w
}

// stream writes events as lines, or as server-sent events.
type stream struct {
	control *http.ResponseController
	w       http.ResponseWriter
	lines   bool
	buf     bytes.Buffer
}

// waiting writes the events that wait in a watch, most at most, and reports whether it has ended.
func (o *stream) waiting(watch *keepcache.Watch, most int) (ended bool) {
	for n := 0; n < most && o.buf.Len() < turnBytes; n++ {
		select {
		case e, open := <-watch.Events():
			if !open {
				return true
			}
			o.event(eventOf(e))
		default:
			return false
		}
	}
	return false
}

func (o *stream) event(e wire.Event) {
	text, err := json.Marshal(e)
	if err != nil {
		return // there is nothing in it that cannot be marshalled
	}
	if o.lines {
		o.buf.Write(append(text, '\n'))
		return
	}
	// Line ends within the text are escaped, so that it is one line of data.
	o.buf.WriteString("data: ")
	o.buf.Write(append(text, "\n\n"...))
}

func (o *stream) alive() {
	if o.lines {
		o.buf.WriteString("\n")
		return
	}
	o.buf.WriteString(": still here\n\n")
}

func (o *stream) flush() error {
	// Not every server can set deadlines; then its own hold.
	_ = o.control.SetWriteDeadline(time.Now().Add(streamStall))
	_, err := o.w.Write(o.buf.Bytes())
	o.buf.Reset()
	if err != nil {
		return err
	}
	return o.control.Flush()
}
