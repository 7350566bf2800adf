package inspect

import (
	"net/http"
	"time"
)

// Options say what a handler shows and allows. The zero value, like nil, selects the safe default of each option.
type Options struct {
	// ShowValues shows the values and ETags of entries, and allows a backup of the whole cache if there is no Redact.
	// Without ShowValues, clients see only keys, sizes, times and tags. Default: false.
	ShowValues bool

	// AllowWrites allows changes: set, restore, add, delete, touch, increment, clear, invalidate, sweep and compact.
	// Default: false.
	AllowWrites bool

	// Redact gets the JSON of each value before it is shown, and returns the JSON to show instead. If it returns nil,
	// the value is hidden. It may be called from several goroutines at the same time. A value is also hidden if Redact
	// panics, or if the JSON before or after Redact is longer than 1 MiB. With Redact, ETags are not shown. Default:
	// nil, values are shown unchanged.
	Redact func(bucket, key string, value []byte) []byte

	// Authorize decides about each request before any work is done. If it returns an error, the request is refused, and
	// the text of the error is sent. If the error is a *Refusal, it also chooses status and headers. BasicAuth returns
	// an Authorize that asks for a password. The page's style sheet, script and icon, which contain nothing of the
	// cache, are served without calling Authorize. Default: nil, every request that Hosts allows is served.
	Authorize func(r *http.Request) error

	// Hosts are more host names, without a port, under which the handler may be reached. localhost, names under
	// localhost, and loopback addresses are always allowed. Default: none.
	Hosts []string

	// PageEntries is the maximum number of entries in one answer, up to 10,000. Default: 1000, also for values below 1.
	PageEntries int

	// Streams is the maximum number of event streams at one time. Further streams are refused. Default: 8, also for
	// values below 1.
	Streams int

	// StreamRate is the maximum number of events that each stream sends in a second. Others are dropped and counted.
	// Default: 1000, also for values below 1.
	StreamRate int

	// Timeout limits the work on one answer. It does not apply to streams, biggest, verify, compact, sweep, clear and
	// backup, which end with their request. Default: 10 s, also for values below 1.
	Timeout time.Duration

	// Title is the title of the page. Default: the name of the cache's file.
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
