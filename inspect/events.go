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
	// streamPause is how long a stream collects events before it sends them together. The buffer that fills meanwhile
	// bounds what watching costs a busy cache, and people do not notice the delay.
	streamPause = 100 * time.Millisecond

	// burst is the size of the buffer, in events of so many pauses: a burst is sent a little later and not dropped.
	burst = 10

	// turnBytes limits how many bytes are sent together: names may be long.
	turnBytes = 256 << 10

	// streamAlive is how often a stream without events sends a sign of life.
	streamAlive = 15 * time.Second

	// streamStall is how long a client may read nothing before its stream ends.
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

// kindsOf parses a list of names of kinds, separated by commas.
func kindsOf(list string) (kinds keepcache.EventKind, err error) {
	if list == "" {
		return 0, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		kind, ok := kindNames[name]
		if !ok {
			return 0, badRequest("unknown kind of event %.50q", name)
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
	w.Header().Set("X-Accel-Buffering", "no") // otherwise a proxy may buffer the events
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

// eventOf converts an event for the protocol.
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

// waiting writes up to most pending events of a watch, and reports whether the watch has ended.
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
		return // cannot happen: everything in it can be marshalled
	}
	if o.lines {
		o.buf.Write(append(text, '\n'))
		return
	}
	// The text is one line of data: line ends within it are escaped.
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
	// If the server does not support deadlines, its own timeouts apply.
	_ = o.control.SetWriteDeadline(time.Now().Add(streamStall))
	_, err := o.w.Write(o.buf.Bytes())
	o.buf.Reset()
	if err != nil {
		return err
	}
	return o.control.Flush()
}
