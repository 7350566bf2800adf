package inspect

import (
	"net/http"
	"time"
)

// Options say what a handler shows and allows. The zero value, as a nil, is the safe choice of everything.
type Options struct {
	// ShowValues shows the values of entries, and their ETags, and lets the whole cache be copied if there is no Redact.
	// Without it there are keys, sizes, times and tags. Default: false.
	ShowValues bool

	// AllowWrites takes writes: set, add, delete, touch, clear, invalidate, sweep and compact. Default: false.
	AllowWrites bool

	// Redact is given the JSON of each value before it is shown and returns what to show instead, as JSON; nil shows
	// nothing. It may be called from several goroutines at once. A panic in it hides the value, and so does a text of more
	// than 1 MiB, before or after it. ETags are not shown then. Default: nil, values are shown as they are.
	Redact func(bucket, key string, value []byte) []byte

	// Authorize decides about each request before anything is done; an error refuses it, and its words are sent. An error
	// that is a *Refusal chooses status and headers too. BasicAuth makes a function that asks for a password. The page's
	// style, script and icon, which say nothing of the cache, are served before it is asked. Default: nil, everybody is
	// let in whom Hosts lets in.
	Authorize func(r *http.Request) error

	// Hosts are the names, without a port, by which the handler may be asked for besides localhost, names under it, and
	// addresses of the loopback. Default: none.
	Hosts []string

	// PageEntries is the most entries of one answer, 10,000 at most. Default: 1000, as for values below 1.
	PageEntries int

	// Streams is the most event streams at one time; another is refused. Default: 8, as for values below 1.
	Streams int

	// StreamRate is the most events that each stream sends in a second; others are dropped, and counted. Default: 1000, as
	// for values below 1.
	StreamRate int

	// Timeout is the longest time for the work on one answer, except for streams, Verify, Compact, Sweep, Clear and
	// Backup, which end with their request. Default: 10 s, as for values below 1.
	Timeout time.Duration

	// Title is the heading of the page. Default: the name of the cache's file.
	Title string
}

const (
	defaultPageEntries = 1000
	mostPageEntries    = 10_000
	defaultStreams     = 8
	defaultStreamRate  = 1000
	defaultTimeout     = 10 * time.Second
)

func (o *Options) withDefaults() Options {
	var f Options
	if o != nil {
		f = *o
	}
	if f.PageEntries <= 0 {
		f.PageEntries = defaultPageEntries
	}
	f.PageEntries = min(f.PageEntries, mostPageEntries)
	if f.Streams <= 0 {
		f.Streams = defaultStreams
	}
	if f.StreamRate <= 0 {
		f.StreamRate = defaultStreamRate
	}
	if f.Timeout <= 0 {
		f.Timeout = defaultTimeout
	}
	return f
}
