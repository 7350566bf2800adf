package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

const (
	// mostValueBytes is the largest value accepted over HTTP, the default limit of the library. It bounds the memory of
	// one request.
	mostValueBytes = 64 << 20

	// mostBodyBytes is the largest body. Most values at most double in size as JSON text, and bytes grow by a third as
	// base64.
	mostBodyBytes = 2*mostValueBytes + 1<<20

	// mostMembers bounds the members of a body. The protocol has about twenty.
	mostMembers = 64
)

// write is the body of a POST. Its value is a slice of the body's text.
type write struct {
	wire.Write
	value []byte // JSON text
}

func checkJSON(r *http.Request) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != wire.TypeJSON {
		return badRequest("the Content-Type is %.50q and not %s", r.Header.Get("Content-Type"), wire.TypeJSON)
	}
	return nil
}

// body reads the body of a POST. Only one large body at a time is read, until its visit ends.
func (v *visit) body() (b write, err error) {
	size := v.r.ContentLength
	if size > mostBodyBytes {
		return b, fmt.Errorf("%w: the request", keepcache.ErrTooLarge)
	}
	if size < 0 || size > largeValue {
		if err := v.turn(); err != nil {
			return b, err
		}
	}
	// Limit the time for sending it. If the server does not support deadlines, its own timeout applies.
	_ = v.control.SetReadDeadline(time.Now().Add(streamStall + rateTime(max(size, 0))))
	defer v.control.SetReadDeadline(time.Time{})
	text, err := readBody(http.MaxBytesReader(v.w, v.r.Body, mostBodyBytes), size)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return b, fmt.Errorf("%w: the request", keepcache.ErrTooLarge)
		}
		return b, badRequest("the body: %w", err)
	}
	if err := b.parse(text); err != nil {
		return b, err
	}
	if b.Bucket == "" {
		b.Bucket = keepcache.DefaultBucket
	}
	return b, nil
}

// readBody reads size bytes, or everything if size is negative. It allocates memory as the bytes arrive.
func readBody(r io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(r)
	}
	text := make([]byte, 0, min(size, 64<<10)+1)
	for {
		n, err := r.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return nil, err
		}
		if len(text) == cap(text) { // when the first bytes have arrived, the declared size is trusted
			text = append(make([]byte, 0, max(size+1, int64(2*cap(text)))), text...)
		}
	}
}

// parse reads the members of a body.
func (b *write) parse(text []byte) error {
	if !utf8.Valid(text) {
		return badRequest("the body is not UTF-8")
	}
	if !json.Valid(text) {
		var raw json.RawMessage
		return badRequest("the body: %w", json.Unmarshal(text, &raw))
	}
	members, err := split(text)
	if err != nil {
		return err
	}
	for _, m := range members {
		into := any(nil)
		switch m.name {
		case "bucket":
			into = &b.Bucket
		case "key":
			into = &b.Key
		case "value":
			b.value = m.text
			continue
		case "literals":
			into = &b.Literals
		case "bytes":
			into = &b.Bytes
		case "ttl_ms":
			into = &b.TTL
		case "expires_at_ms":
			into = &b.ExpiresAt
		case "tags":
			into = &b.Tags
		case "stale_until_ms":
			into = &b.StaleUntil
		case "written_at_ms":
			into = &b.WrittenAt
		case "loaded_at_ms":
			into = &b.LoadedAt
		case "retry_at_ms":
			into = &b.RetryAt
		case "sliding_ms":
			into = &b.Sliding
		case "etag":
			into = &b.ETag
		case "negative":
			into = &b.Negative
		case "prefix":
			into = &b.Prefix
		case "drop":
			into = &b.Drop
		case "by":
			into = &b.By
		default:
			return badRequest("unknown member %.50q", m.name)
		}
		if err := json.Unmarshal(m.text, into); err != nil {
			return badRequest("%s: %w", m.name, err)
		}
	}
	return nil
}

// member is a member of an object, as a slice of its text.
type member struct {
	name string
	text []byte
}

// split splits an object, whose text is valid, into its members. It does not decode their values.
func split(text []byte) (members []member, err error) {
	i := space(text, 0)
	if text[i] != '{' {
		return nil, badRequest("the body is not a JSON object")
	}
	for i = space(text, i+1); text[i] != '}'; {
		if text[i] == ',' {
			i = space(text, i+1)
		}
		if len(members) == mostMembers {
			return nil, badRequest("the body has more than %d members", mostMembers)
		}
		var m member
		end := skip(text, i)
		if end-i > 200 {
			return nil, badRequest("unknown member %.50q", text[i:end])
		}
		if err := json.Unmarshal(text[i:end], &m.name); err != nil {
			return nil, badRequest("%w", err)
		}
		i = space(text, space(text, end)+1) // after the colon
		end = skip(text, i)
		m.text = text[i:end]
		members = append(members, m)
		i = space(text, end)
	}
	return members, nil
}

func space(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n') {
		i++
	}
	return i
}

// skip returns the end of the value that begins at text[i].
func skip(text []byte, i int) int {
	for depth := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default: // a part of a number or a word
			if depth > 0 {
				continue
			}
			for i+1 < len(text) && text[i+1] > ' ' && text[i+1] != ',' && text[i+1] != '}' && text[i+1] != ']' {
				i++
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(text)
}
