package inspect

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

// outsize is an answer with a value that is too large to be in memory as text. It is sent while the value is read.
type outsize struct {
	entry   wire.Entry // without its value
	encoded []byte
	page    *wire.Keys // with only this entry, or nil if the entry itself is the answer
}

// send sends the answer. An error truncates the answer, which the client notices.
func (o *outsize) send(v *visit) {
	v.w.Header().Set("Content-Type", wire.TypeJSON)
	// The text may be six times as long as what is stored, but rarely is.
	out := v.patient(2 * int64(len(o.encoded)))
	ctx, stop := context.WithDeadline(v.r.Context(), out.until)
	defer stop()
	defer context.AfterFunc(v.s.closing, stop)()
	if err := o.write(ctx, out); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (o *outsize) write(ctx context.Context, out *patient) error {
	w := bufio.NewWriterSize(out, 32<<10)
	head, err := json.Marshal(o.entry)
	if err != nil {
		return err
	}
	var tail []byte
	if o.page != nil {
		o.page.Entries = []wire.Entry{}
		around, err := json.Marshal(o.page)
		if err != nil {
			return err
		}
		before, after, _ := bytes.Cut(around, []byte("[]")) // entries is the first member
		tail = after
		w.Write(before)
		w.WriteByte('[')
	}
	w.Write(bytes.TrimSuffix(head, []byte("}")))
	w.WriteString(`,"value":`)
	literals, err := jsontext.Write(ctx, w, o.encoded)
	if err != nil {
		return err
	}
	if literals > 0 { // read the value again for their positions
		next := byte('[')
		w.WriteString(`,"literals":`)
		err := jsontext.EachLiteral(ctx, o.encoded, func(place int) error {
			w.WriteByte(next)
			next = ','
			_, err := w.WriteString(strconv.Itoa(place))
			return err
		})
		if err != nil {
			return err
		}
		w.WriteByte(']')
	}
	w.WriteByte('}')
	if o.page != nil {
		w.WriteByte(']')
		w.Write(tail)
	}
	w.WriteByte('\n')
	return w.Flush() // returns the first error of all writes
}
