// Package wire is the protocol by which a running cache is looked into: what the server in package inspect answers
// and what the command understands. docs/inspect.md describes it for everybody else.
package wire

import (
	"encoding/json"
	"errors"
	"math"
	"time"
	"unicode/utf8"

	"github.com/keepcache/keepcache"
)

// Version is the version of the protocol. It is the first part of every path, v1, and in the header VersionHeader of
// every answer. Members and endpoints may be added to a version; what is there keeps its meaning.
const (
	Version       = 1
	Prefix        = "v1/"
	VersionHeader = "Keepcache-Inspect"
)

// Media types of answers.
const (
	TypeJSON  = "application/json"
	TypeLines = "application/x-ndjson"
	TypeSSE   = "text/event-stream"
)

// Name is a key, a bucket's name, a prefix, a tag or an ETag: any bytes. In JSON it is a string where the bytes are
// UTF-8, and else an object {"base64": "..."}. In the query of a URL it is percent-encoded, which carries all bytes.
type Name string

// MarshalJSON implements json.Marshaler.
func (n Name) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(n)) {
		return json.Marshal(string(n))
	}
	return json.Marshal(encodedName{[]byte(n)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Name) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '{' {
		var e encodedName
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		if e.Base64 == nil {
			return errors.New(`a name that is an object has the member "base64"`)
		}
		*n = Name(e.Base64)
		return nil
	}
	return json.Unmarshal(text, (*string)(n))
}

type encodedName struct {
	Base64 []byte `json:"base64"`
}

// Hello is what a server says of itself: the answer to v1/.
type Hello struct {
	Version int    `json:"version"`
	Path    Name   `json:"path"` // absolute, of the cache's file
	PID     int    `json:"pid"`
	Program string `json:"program"` // the program's module and version, where it is known
	Since   int64  `json:"since_ms"`
	Now     int64  `json:"now_ms"`
	Values  bool   `json:"values"` // values are shown
	Writes  bool   `json:"writes"` // writes are allowed
	Page    int    `json:"page"`   // the most entries of one answer
}

// Entry is one entry. Times are unix milliseconds, 0 for none.
type Entry struct {
	Bucket     Name   `json:"bucket"`
	Key        Name   `json:"key"`
	Size       int    `json:"size"` // of the encoded value, in bytes
	WrittenAt  int64  `json:"written_at_ms"`
	ExpiresAt  int64  `json:"expires_at_ms,omitempty"`  // until when it is fresh
	StaleUntil int64  `json:"stale_until_ms,omitempty"` // until when it may be served stale, not before Expires
	Revision   uint64 `json:"revision"`
	LoadedAt   int64  `json:"loaded_at_ms,omitempty"`
	ETag       Name   `json:"etag,omitempty"`
	Tags       []Name `json:"tags,omitempty"`
	RetryAt    int64  `json:"retry_at_ms,omitempty"` // not to be loaded again before
	Sliding    int64  `json:"sliding_ms,omitempty"`  // the lifetime that a read gives it anew; a span
	Negative   bool   `json:"negative,omitempty"`    // a loader found that there is no such thing

	ETagHidden bool `json:"etag_hidden,omitempty"` // there is an ETag, which is not shown

	Value    json.RawMessage `json:"value,omitempty"`    // left out where it was not asked for, or is hidden
	Literals []int           `json:"literals,omitempty"` // which numbers of the value are stored as text
	Hidden   bool            `json:"hidden,omitempty"`   // the value was asked for and is not shown
	Redacted bool            `json:"redacted,omitempty"` // the value is not what is stored
}

// EntryOf returns an entry without its value.
func EntryOf(bucket string, e keepcache.Entry) Entry {
	w := Entry{
		Bucket: Name(bucket), Key: Name(e.Key), Size: e.Size, WrittenAt: e.WrittenAt.UnixMilli(),
		ExpiresAt: unixMilli(e.ExpiresAt), StaleUntil: unixMilli(e.StaleUntil), Revision: e.Revision,
		LoadedAt: unixMilli(e.LoadedAt), ETag: Name(e.ETag),
		RetryAt: unixMilli(e.RetryAt), Sliding: e.Sliding.Milliseconds(), Negative: e.Negative,
	}
	for _, tag := range e.Tags {
		w.Tags = append(w.Tags, Name(tag))
	}
	return w
}

// Entry returns the entry as the library has it, without its value.
func (w Entry) Entry() keepcache.Entry {
	e := keepcache.Entry{
		Key: string(w.Key), Size: w.Size, WrittenAt: time.UnixMilli(w.WrittenAt),
		ExpiresAt: timeOf(w.ExpiresAt), StaleUntil: timeOf(w.StaleUntil), Revision: w.Revision,
		LoadedAt: timeOf(w.LoadedAt), ETag: string(w.ETag),
		RetryAt: timeOf(w.RetryAt), Sliding: span(w.Sliding), Negative: w.Negative,
	}
	for _, tag := range w.Tags {
		e.Tags = append(e.Tags, string(tag))
	}
	return e
}

// span returns a span of milliseconds; what is longer than a duration can be is one of the longest.
func span(ms int64) time.Duration {
	if ms > math.MaxInt64/int64(time.Millisecond) {
		return keepcache.NoExpiry - 1
	}
	return time.Duration(ms) * time.Millisecond
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Keys is a page of a list of entries: the answer to v1/keys, v1/biggest and v1/expiring.
type Keys struct {
	Entries []Entry `json:"entries"`
	Damaged int     `json:"damaged,omitempty"` // entries that were left out because they are damaged
	Looked  int64   `json:"looked"`            // entries that were looked at
	// go on with after= this; left out at the end. A page may be empty and not the last
	Next    *Name `json:"next,omitempty"`
	Partial bool  `json:"partial,omitempty"` // of biggest: the time was over before all entries were looked at
}

// Bucket is one bucket.
type Bucket struct {
	Name    Name  `json:"name"`
	Entries int64 `json:"entries"` // expired ones that were not swept yet included
	Bytes   int64 `json:"bytes"`   // of their keys and records
	Cost    int64 `json:"cost"`    // bytes of the file that they need, as budgets count them
}

// Buckets is the answer to v1/buckets, in the byte order of the names.
type Buckets struct {
	Buckets []Bucket `json:"buckets"`
}

// Found is the answer to v1/exists, and to the writes that depend on whether a key was there: delete and touch say
// that it was, add that it was not stored because it was.
type Found struct {
	Found bool `json:"found"`
}

// Sum is the answer to increment.
type Sum struct {
	Sum int64 `json:"sum"`
}

// Removed is the answer to clear and sweep.
type Removed struct {
	Removed int `json:"removed"`
}

// Compacted is the answer to compact.
type Compacted struct {
	Before int64 `json:"before_bytes"`
	After  int64 `json:"after_bytes"`
}

// Report is the answer to verify.
type Report struct {
	Buckets  int           `json:"buckets"`
	Entries  int           `json:"entries"`
	Expired  int           `json:"expired"`
	Pending  int           `json:"pending"`
	Rows     int           `json:"rows"`
	Journal  ReportJournal `json:"journal"`
	Problems []string      `json:"problems"`
	More     int           `json:"more_problems"`
}

// ReportJournal is what a Report says of the journal: its size, and how many entries and removals the file does not
// have yet.
type ReportJournal struct {
	FileBytes int64 `json:"file_bytes"`
	Entries   int   `json:"entries"`
	Removed   int   `json:"removed"`
}

// Write is the body of every POST. Each reads the members that it needs and refuses the others.
type Write struct {
	Bucket Name `json:"bucket,omitempty"`
	Key    Name `json:"key,omitempty"`

	Value    json.RawMessage `json:"value,omitempty"`    // of set and add: JSON
	Literals []int           `json:"literals,omitempty"` // as in Entry
	Bytes    []byte          `json:"bytes,omitempty"`    // of set and add, in the place of Value: base64
	// of set, add, increment and touch; 0 is the bucket's default, -1 never
	TTL       int64 `json:"ttl_ms,omitempty"`
	ExpiresAt int64 `json:"expires_at_ms,omitempty"`

	// Tags are of set, add, restore and invalidate. Left out, set leaves an entry those that it has.
	Tags *[]Name `json:"tags,omitempty"`

	// What else restore gives an entry, as in Entry. StaleUntil of -1 is never, and left out it is ExpiresAt.
	StaleUntil int64 `json:"stale_until_ms,omitempty"`
	WrittenAt  int64 `json:"written_at_ms,omitempty"`
	LoadedAt   int64 `json:"loaded_at_ms,omitempty"`
	RetryAt    int64 `json:"retry_at_ms,omitempty"`
	Sliding    int64 `json:"sliding_ms,omitempty"`
	ETag       Name  `json:"etag,omitempty"`
	Negative   bool  `json:"negative,omitempty"`

	Prefix Name  `json:"prefix,omitempty"` // of clear: only keys that begin with it
	Drop   bool  `json:"drop,omitempty"`   // of clear: the bucket as well
	By     int64 `json:"by,omitempty"`     // of increment
}

// Restore returns what restore is to be told of an entry of a bucket, without its value.
func Restore(bucket string, e keepcache.Entry) Write {
	w := Write{
		Bucket: Name(bucket), Key: Name(e.Key), ExpiresAt: unixMilli(e.ExpiresAt), StaleUntil: unixMilli(e.StaleUntil),
		WrittenAt: unixMilli(e.WrittenAt), LoadedAt: unixMilli(e.LoadedAt), RetryAt: unixMilli(e.RetryAt),
		Sliding: e.Sliding.Milliseconds(), ETag: Name(e.ETag), Negative: e.Negative,
	}
	switch {
	case e.StaleUntil.Equal(e.ExpiresAt):
		w.StaleUntil = 0
	case e.StaleUntil.IsZero():
		w.StaleUntil = -1
	}
	if len(e.Tags) > 0 {
		tags := make([]Name, len(e.Tags))
		for i, tag := range e.Tags {
			tags[i] = Name(tag)
		}
		w.Tags = &tags
	}
	return w
}

// Entry is the inverse of Restore.
func (w *Write) Entry() keepcache.Entry {
	e := keepcache.Entry{
		Key: string(w.Key), ExpiresAt: timeOf(w.ExpiresAt), StaleUntil: timeOf(w.StaleUntil), WrittenAt: timeOf(w.WrittenAt),
		LoadedAt: timeOf(w.LoadedAt),
		RetryAt:  timeOf(w.RetryAt), Sliding: span(w.Sliding), ETag: string(w.ETag), Tags: w.TagList(), Negative: w.Negative,
	}
	switch w.StaleUntil {
	case 0:
		e.StaleUntil = e.ExpiresAt
	case -1:
		e.StaleUntil = time.Time{}
	}
	return e
}

// TagList returns the tags that w has.
func (w *Write) TagList() (tags []string) {
	if w.Tags != nil {
		for _, tag := range *w.Tags {
			tags = append(tags, string(tag))
		}
	}
	return tags
}

// Event is one thing that happened: an element of v1/events.
type Event struct {
	Time   int64  `json:"at_ms"`
	Kind   string `json:"kind"` // as keepcache.EventKind names it; "dropped" where Dropped says how many are missing here
	Bucket Name   `json:"bucket,omitempty"`
	Key    Name   `json:"key,omitempty"`
	Detail string `json:"detail,omitempty"`
	Err    string `json:"error,omitempty"`

	Done  int64 `json:"done_bytes,omitempty"`  // of progress; left out where it is 0
	Total int64 `json:"total_bytes,omitempty"` // of progress; left out where it is not known

	Dropped uint64 `json:"dropped,omitempty"`
}
