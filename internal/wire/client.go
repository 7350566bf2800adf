package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
)

// Client speaks to one server. Its methods may be called from any goroutine. Errors of the library come back as
// such: errors.Is finds keepcache.ErrReadOnly and the others.
type Client struct {
	// Patience is how long an answer to a read may take, and a second more for each MiB that has come; servers hold their
	// clients to that rate too. What has no end of itself is for ctx alone: Events, writes and Backup. Set it before the
	// first use. 0 is for ever.
	Patience time.Duration

	addr string // as it may be shown
	base *url.URL
	http *http.Client
}

// Bounds of the client.
const (
	dialWait    = 2 * time.Second // a server on the same machine answers at once or is not there
	maxAnswer   = 1 << 30         // bytes of one answer with values; one has 500 MiB at most, and more as text
	maxWords    = 256 << 20       // bytes of one without: the names of all buckets at worst
	maxDamaged  = 1 << 20         // entries that a page may have left out; a page is looked for during 250 ms
	maxFailure  = 1 << 20         // bytes of an answer that is an error
	maxEventLen = 1 << 20         // bytes of one event: a key of 32,000 bytes, six characters each at worst
)

// New returns a client of the server at addr: unix: and the path of a socket, or the URL, http:// or https://, under
// which the handler is mounted. It connects to nothing yet.
func New(addr string) (*Client, error) {
	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialWait}).DialContext,
		TLSHandshakeTimeout:    dialWait,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	c := &Client{addr: shown(addr), http: &http.Client{
		Transport: transport,
		// A redirect would lead to another server than the one that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		if path == "" {
			return nil, fmt.Errorf("address %q names no socket", c.addr)
		}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return DialSocket(ctx, path)
		}
		c.base = &url.URL{Scheme: "http", Host: "localhost", Path: "/"}
		return c, nil
	}
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("address %.200q is neither unix:PATH nor http://HOST/PATH", c.addr)
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	c.base = u
	return c, nil
}

// Addr returns the address that the client was made with, as it may be shown: without its password.
func (c *Client) Addr() string { return c.addr }

// shown hides the password of an address, whether it is one that can be used or not.
func shown(addr string) string {
	scheme, rest, found := strings.Cut(addr, "://")
	if !found {
		scheme, rest = "", addr
	}
	if strings.HasPrefix(addr, "unix:") {
		return addr
	}
	at := strings.LastIndexByte(rest, '@') // one that is not encoded may have slashes, too
	if at < 0 {
		return addr
	}
	user, _, _ := strings.Cut(rest[:at], ":")
	if found {
		scheme += "://"
	}
	return scheme + user + ":xxxxx" + rest[at:]
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Hello asks who the server is. It is the first thing to ask: the error says whether there is one (ErrNoServer) that
// speaks this version (ErrVersion).
func (c *Client) Hello(ctx context.Context) (h Hello, err error) {
	return h, c.get(ctx, "", nil, &h)
}

// Stats returns the server's stats.
func (c *Client) Stats(ctx context.Context) (keepcache.Stats, error) {
	var w Stats
	err := c.get(ctx, "stats", nil, &w)
	return w.Stats(), err
}

// Buckets returns all buckets in the byte order of their names.
func (c *Client) Buckets(ctx context.Context) ([]Bucket, error) {
	var b Buckets
	err := c.get(ctx, "buckets", nil, &b)
	return b.Buckets, err
}

// Query says which entries of a bucket to list. The zero value lists all, without values.
type Query struct {
	Bucket string // empty is the default bucket
	Prefix string // literal
	Glob   string // pattern for whole keys: *, ?, [a-z], [^a-z] and \
	Tag    string
	From   string // only keys that are not less
	To     string // only keys that are less
	After  string // only keys that come after this one
	Limit  int    // of one page; 0 is the server's own
	Values bool   // with values

	Reverse bool // in descending order of the keys
	Stale   bool // stale and negative entries too, as in keepcache.ScanOptions
}

func (q Query) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("bucket", q.Bucket)
	set("prefix", q.Prefix)
	set("glob", q.Glob)
	set("tag", q.Tag)
	set("from", q.From)
	set("to", q.To)
	set("after", q.After)
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Values {
		v.Set("values", "1")
	}
	if q.Reverse {
		v.Set("reverse", "1")
	}
	if q.Stale {
		v.Set("stale", "1")
	}
	return v
}

// Keys returns a page of the entries that q asks for, in the order of their keys.
func (c *Client) Keys(ctx context.Context, q Query) (k Keys, err error) {
	return k, c.get(ctx, "keys", q.values(), &k)
}

// All ranges over all pages of q. After an error, which comes with a zero Entry, it ends. damaged is the number of
// entries that were left out so far.
func (c *Client) All(ctx context.Context, q Query, damaged *int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			page, err := c.Keys(ctx, q)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if page.Damaged < 0 || page.Damaged > maxDamaged {
				yield(Entry{}, fmt.Errorf("%w: a page without %d damaged entries", ErrInternal, page.Damaged))
				return
			}
			if damaged != nil {
				*damaged += page.Damaged
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if page.Next == nil {
				return
			}
			next := string(*page.Next)
			if next == "" || q.After != "" && (next <= q.After) != q.Reverse || next == q.After {
				yield(Entry{}, fmt.Errorf("%w: its pages do not go on", ErrInternal))
				return
			}
			q.After = next
		}
	}
}

// Entry returns one entry, with its value where the server shows it. The error is keepcache.ErrNotFound where it is
// absent, and keepcache.ErrCorrupt where it is damaged. It does not count as a read and prolongs no sliding lifetime.
func (c *Client) Entry(ctx context.Context, bucket, key string, values bool) (e Entry, err error) {
	q := Query{Bucket: bucket, Values: values}.values()
	q.Set("key", key)
	return e, c.get(ctx, "entry", q, &e)
}

// Exists reports whether a key is there and not expired. It does not count as a read and prolongs no sliding lifetime.
func (c *Client) Exists(ctx context.Context, bucket, key string) (bool, error) {
	q := Query{Bucket: bucket}.values()
	q.Set("key", key)
	var f Found
	err := c.get(ctx, "exists", q, &f)
	return f.Found, err
}

// Biggest returns the entries with the largest values, the largest first: of one bucket, or for "" of all.
func (c *Client) Biggest(ctx context.Context, bucket string, limit int) (k Keys, err error) {
	return k, c.get(ctx, "biggest", Query{Bucket: bucket, Limit: limit}.values(), &k)
}

// Expiring returns the entries that expire next, the soonest first: of one bucket, or for "" of all.
func (c *Client) Expiring(ctx context.Context, bucket string, limit int) (k Keys, err error) {
	return k, c.get(ctx, "expiring", Query{Bucket: bucket, Limit: limit}.values(), &k)
}

// Set stores a value: w.Bucket, Key, Value with Literals or Bytes, TTL or Expires, and Tags count.
func (c *Client) Set(ctx context.Context, w Write) error { return c.post(ctx, "set", w, nil) }

// Restore stores an entry exactly as w says, which Restore has made; the value is as in Set.
func (c *Client) Restore(ctx context.Context, w Write) error { return c.post(ctx, "restore", w, nil) }

// Add is Set for a key that is absent, and reports whether it was.
func (c *Client) Add(ctx context.Context, w Write) (added bool, err error) {
	var f Found
	err = c.post(ctx, "add", w, &f)
	return !f.Found && err == nil, err
}

// Increment adds to the integer of a key and returns the sum. ttl is as in keepcache.Bucket.Increment.
func (c *Client) Increment(ctx context.Context, bucket, key string, by int64, ttl time.Duration) (int64, error) {
	var s Sum
	err := c.post(ctx, "increment", Write{Bucket: Name(bucket), Key: Name(key), By: by, TTL: TTL(ttl)}, &s)
	return s.Sum, err
}

// Delete removes a key and reports whether it was there.
func (c *Client) Delete(ctx context.Context, bucket, key string) (found bool, err error) {
	var f Found
	err = c.post(ctx, "delete", Write{Bucket: Name(bucket), Key: Name(key)}, &f)
	return f.Found, err
}

// Touch gives a key a new lifetime and reports whether it was there. ttl is as in keepcache.Bucket.Touch.
func (c *Client) Touch(ctx context.Context, bucket, key string, ttl time.Duration) (found bool, err error) {
	var f Found
	err = c.post(ctx, "touch", Write{Bucket: Name(bucket), Key: Name(key), TTL: TTL(ttl)}, &f)
	return f.Found, err
}

// TTL returns a lifetime as a Write has it, in milliseconds and rounded up.
func TTL(ttl time.Duration) int64 {
	if ttl == keepcache.NoExpiry {
		return -1
	}
	ms := ttl.Milliseconds()
	if ttl%time.Millisecond > 0 {
		ms++
	}
	return ms
}

// Clear removes the entries of a bucket, those that begin with prefix if it is not empty, and with drop the bucket
// too. It returns how many there were.
func (c *Client) Clear(ctx context.Context, bucket, prefix string, drop bool) (removed int, err error) {
	var r Removed
	err = c.post(ctx, "clear", Write{Bucket: Name(bucket), Prefix: Name(prefix), Drop: drop}, &r)
	return r.Removed, err
}

// InvalidateTags makes all entries with one of the tags absent, all or nothing.
func (c *Client) InvalidateTags(ctx context.Context, tags []string) error {
	names := make([]Name, len(tags))
	for i, tag := range tags {
		names[i] = Name(tag)
	}
	return c.post(ctx, "invalidate", Write{Tags: &names}, nil)
}

// Sweep removes what expired and returns how many entries that were.
func (c *Client) Sweep(ctx context.Context) (removed int, err error) {
	var r Removed
	err = c.post(ctx, "sweep", Write{}, &r)
	return r.Removed, err
}

// Compact shrinks the file.
func (c *Client) Compact(ctx context.Context) (r Compacted, err error) {
	return r, c.post(ctx, "compact", Write{}, &r)
}

// Verify has the server prove its file. It changes nothing.
func (c *Client) Verify(ctx context.Context) (r Report, err error) {
	return r, c.post(ctx, "verify", Write{}, &r)
}

// ResultTrailer says after a backup, as "ok", that it is whole.
const ResultTrailer = "Keepcache-Result"

// Backup writes a copy of the cache to w. After an error what was written is not whole.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodPost, "backup", nil, Write{}, "application/octet-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return c.failed(ctx, "backup", err)
	}
	if resp.Trailer.Get(ResultTrailer) != "ok" {
		return fmt.Errorf("%w: the backup is not whole", ErrInternal)
	}
	return nil
}

// Watch says which events to stream. The zero value is all kinds of all buckets.
type Watch struct {
	Kinds  []string // as keepcache.EventKind names them
	Bucket string   // empty is all
	Prefix string   // of keys
}

// Events ranges over events as they happen, until ctx ends, the server goes away or the loop is left. The last
// element is then the error, with a zero Event. The server leaves out events that come faster than it sends them,
// and says how many.
func (c *Client) Events(ctx context.Context, w Watch) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		q := Query{Bucket: w.Bucket, Prefix: w.Prefix}.values()
		if len(w.Kinds) > 0 {
			q.Set("kinds", strings.Join(w.Kinds, ","))
		}
		resp, err := c.do(ctx, http.MethodGet, "events", q, nil, TypeLines)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(make([]byte, 0, 4096), maxEventLen)
		for lines.Scan() {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue // says only that the server is there
			}
			var e Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				yield(Event{}, c.failed(ctx, "events", err))
				return
			}
			e.Kind = display.Text(e.Kind, 40) // a name that the other side chose
			if !yield(e, nil) {
				return
			}
		}
		err = lines.Err()
		if err == nil {
			err = io.EOF
		}
		yield(Event{}, c.failed(ctx, "events", err))
	}
}
