package inspect

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/wire"
)

//go:embed assets
var assets embed.FS

var pages = template.Must(template.ParseFS(assets, "assets/page.html"))

// files are what a page consists of besides itself.
var files = map[string]string{
	"style.css": "text/css; charset=utf-8",
	"script.js": "text/javascript; charset=utf-8",
	"icon.svg":  "image/svg+xml",
}

// frame is what every page shows.
type frameData struct {
	Name, Heading, Title, Path string
	PID                        int
	Writes, Values             bool
}

func (s *server) frame(name, heading string) frameData {
	return frameData{
		Name: name, Heading: heading, Title: s.o.Title, Path: display.Name(s.path), PID: os.Getpid(),
		Writes: s.o.AllowWrites, Values: s.o.ShowValues,
	}
}

// servePage answers what is no part of the protocol.
func (s *server) servePage(w http.ResponseWriter, r *http.Request, name string, fail func(error)) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(badRequest("pages are for GET"))
		return
	}
	ctx, stop := context.WithTimeout(r.Context(), s.o.Timeout)
	defer stop()
	r = r.WithContext(ctx)
	kind, isFile := files[name]
	switch {
	case r.URL.Path == "":
		// StripPrefix has left nothing, because the slash is missing at the end, without which no link is right.
		u, _ := url.ParseRequestURI(r.RequestURI)
		base := "."
		if u != nil {
			base = path.Base(u.EscapedPath())
		}
		w.Header().Set("Location", base+"/")
		w.WriteHeader(http.StatusMovedPermanently)
	case isFile:
		text, _ := assets.ReadFile("assets/" + name) // it is there, as files says
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(text)
	case name == "metrics":
		serveMetrics(s.db, w, r)
	case name == "":
		s.render(w, http.StatusOK, "overview", s.overview(), nil)
	case name == "keys":
		data, err := s.keysPage(r)
		s.render(w, http.StatusOK, "keys", data, fail, err)
	case name == "entry":
		data, err := s.entryPage(r)
		s.render(w, http.StatusOK, "entry", data, fail, err)
	case name == "events":
		s.render(w, http.StatusOK, "events", s.eventsPage(), nil)
	default:
		fail(fmt.Errorf("there is no page %s: %w", display.Name(shorten(name, 80)), keepcache.ErrNotFound))
	}
}

// render writes a page, or has fail say why there is none. A page is whole before its first byte is sent.
func (s *server) render(w http.ResponseWriter, status int, name string, data any, fail func(error), errs ...error) {
	if err := errors.Join(errs...); err != nil {
		fail(err)
		return
	}
	var buf bytes.Buffer
	if err := pages.ExecuteTemplate(&buf, name, data); err != nil {
		http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes())
}

func (s *server) failPage(w http.ResponseWriter, _ *http.Request, err error) {
	f, status := wire.FailureOf(err)
	s.render(w, status, "error", struct {
		frameData
		Status, Message string
	}{s.frame("error", http.StatusText(status)), http.StatusText(status), f.Message}, nil)
}

// row is an entry in a list.
type row struct {
	Href        template.URL
	Key, Bucket string
	Size, Life  string
	Until       int64 // unix milliseconds; 0 for never
	Written     string
	WrittenISO  string
	Tags        []string
}

const shownKey = 96 // characters of a key in a list

func rowOf(e wire.Entry, now time.Time) row {
	r := row{
		Href: entryHref(string(e.Bucket), string(e.Key)), Key: shorten(display.Name(string(e.Key)), shownKey),
		Bucket: shorten(display.Name(string(e.Bucket)), shownKey), Size: size(int64(e.Size)), Life: "never",
		Written: age(now.Sub(time.UnixMilli(e.Written))), WrittenISO: time.UnixMilli(e.Written).UTC().Format(time.RFC3339),
	}
	if e.Expires != 0 {
		r.Until = e.Expires
		r.Life = span(time.UnixMilli(e.Expires).Sub(now))
	}
	for _, tag := range e.Tags {
		r.Tags = append(r.Tags, shorten(display.Name(string(tag)), 32))
	}
	return r
}

// age says how long something is past.
func age(d time.Duration) string {
	if d < time.Second {
		return "just now"
	}
	return span(d) + " ago"
}

// Links are made of percent-encoded bytes alone, whatever the names.
func entryHref(bucket, key string) template.URL {
	return template.URL("entry?" + link("bucket", bucket, "key", key))
}

func keysHref(pairs ...string) template.URL { return template.URL("keys?" + link(pairs...)) }

// bucketRow is a bucket in a list.
type bucketRow struct {
	Href          template.URL
	Name          string
	Entries, Size string
	Part          string // of all bytes, in percent
	Here          bool
}

const shownBuckets = 200

func bucketRows(s keepcache.Stats, here string) (rows []bucketRow, more int) {
	for i, b := range wire.BucketsOf(s) {
		if i == shownBuckets {
			return rows, len(s.Buckets) - shownBuckets
		}
		rows = append(rows, bucketRow{
			Href: keysHref("bucket", string(b.Name)), Name: shorten(display.Name(string(b.Name)), 64),
			Entries: count(b.Entries), Size: size(b.Bytes), Here: string(b.Name) == here,
			Part: fixed(100 * part(b.Bytes, s.Bytes)),
		})
	}
	return rows, 0
}

// typedName reads what a person typed, which may be quoted as names are shown.
func typedName(text string) string {
	if strings.HasPrefix(text, `"`) {
		if name, err := strconv.Unquote(text); err == nil {
			return name
		}
	}
	return text
}

// keysPage is the page of the keys of a bucket.
func (s *server) keysPage(r *http.Request) (any, error) {
	v := r.URL.Query()
	bucket := v.Get("bucket")
	if text := v.Get("bucket64"); text != "" {
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return nil, badRequest("bucket64: %w", err)
		}
		bucket = string(raw)
	}
	stats := s.db.Stats()
	if bucket == "" {
		bucket = keepcache.DefaultBucket
		if list := wire.BucketsOf(stats); len(list) > 0 && stats.Buckets[bucket].Entries == 0 {
			bucket = string(list[0].Name)
		}
	}
	if err := s.known(bucket); err != nil {
		return nil, err
	}
	q, err := s.query(r)
	if err != nil {
		return nil, err
	}
	typed := v.Get("prefix")
	prefix := typedName(typed)
	q.bucket, q.prefix, q.tag = bucket, prefix, typedName(v.Get("tag"))
	if q.match != nil {
		q.prefix, q.none = narrower(prefix, q.match.Prefix)
	}
	q.values = false
	page, err := s.page(r.Context(), q)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	data := struct {
		frameData
		Buckets           []bucketRow
		MoreBuckets       int
		Bucket, Bucket64  string
		Prefix, Glob, Tag string
		Filtered          bool
		Clear             template.URL
		Rows              []row
		Nothing           string
		First, Next       template.URL
		Looked, Damaged   string
	}{
		frameData: s.frame("keys", "Keys of "+display.Name(bucket)), Bucket: display.Name(bucket),
		Bucket64: base64.RawURLEncoding.EncodeToString([]byte(bucket)),
		Prefix:   typed, Glob: v.Get("glob"), Tag: v.Get("tag"), Clear: keysHref("bucket", bucket),
	}
	data.Buckets, data.MoreBuckets = bucketRows(stats, bucket)
	data.Filtered = data.Prefix+data.Glob+data.Tag != ""
	for _, e := range page.Entries {
		data.Rows = append(data.Rows, rowOf(e, now))
	}
	same := []string{"bucket", bucket, "prefix", data.Prefix, "glob", data.Glob, "tag", data.Tag, "limit", v.Get("limit")}
	if q.after != "" {
		data.First = keysHref(same...)
	}
	if page.Next != nil {
		data.Next = keysHref(append(same, "after", string(*page.Next))...)
	}
	switch {
	case page.Next != nil && len(page.Entries) == 0:
		data.Nothing = "Nothing so far."
	case data.Filtered:
		data.Nothing = "No key matches."
	default:
		data.Nothing = "No keys."
	}
	data.Looked = fmt.Sprintf("%s shown of %s looked at", count(len(page.Entries)), count(page.Looked))
	if page.Damaged > 0 {
		data.Damaged = fmt.Sprintf("%s left out: damaged. keepcache verify tells more.", count(page.Damaged))
	}
	return data, nil
}

// fact is a line of a list of facts.
type fact struct{ Label, Value string }

// entryPage is the page of one entry.
func (s *server) entryPage(r *http.Request) (any, error) {
	q, err := s.named(r)
	if err != nil {
		return nil, err
	}
	e, err := s.find(q)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	w := wire.EntryOf(q.bucket, e)
	s.value(&w, e)
	bucketName, _ := json.Marshal(wire.Name(q.bucket)) // a name is always marshalled
	keyName, _ := json.Marshal(wire.Name(q.key))
	data := struct {
		frameData
		Bucket, Key         string
		BucketHref          template.URL
		BucketName, KeyName string
		Until, From         int64
		Life, LifePart      string
		Expires, Gone       string
		Facts               []fact
		Tags                []string
		Value               *node
		Redacted            bool
		NoValue, Cut, Text  string
		Editable            bool
		TTL                 string
	}{
		frameData: s.frame("entry", shorten(display.Name(q.key), 60)), Bucket: display.Name(q.bucket), Key: display.Name(q.key),
		BucketHref: keysHref("bucket", q.bucket), BucketName: string(bucketName), KeyName: string(keyName),
		Facts: []fact{
			{"Size of the encoded value", size(int64(e.Size))},
			{"Written", e.Written.Format(timeFormat)},
			{"Revision", count(e.Revision)},
		},
		Redacted: w.Redacted, TTL: "never",
	}
	if !e.FreshUntil.IsZero() {
		data.Until, data.From = w.Expires, w.Written
		left := e.FreshUntil.Sub(now)
		data.Life, data.Expires = span(left), e.FreshUntil.Format(timeFormat)
		data.LifePart = fixed(1000 * part(int64(left), int64(e.FreshUntil.Sub(e.Written))))
		data.TTL = strconv.FormatInt(max(1, int64(left.Round(time.Second)/time.Second)), 10) + "s"
		if e.GoneAt.After(e.FreshUntil) {
			data.Gone = e.GoneAt.Format(timeFormat)
		}
	}
	if !e.Loaded.IsZero() {
		data.Facts = append(data.Facts, fact{"Loaded", e.Loaded.Format(timeFormat)})
	}
	if e.ETag != "" {
		data.Facts = append(data.Facts, fact{"ETag", display.Name(e.ETag)})
	}
	for _, tag := range e.Tags {
		data.Tags = append(data.Tags, display.Name(tag))
	}
	switch {
	case w.Value == nil && !s.o.ShowValues:
		data.NoValue = "Values are hidden. inspect.Options.ShowValues shows them."
	case w.Value == nil:
		data.NoValue = "This value is not shown."
	default:
		if data.Value, data.Cut, err = tree(w.Value); err != nil {
			return nil, err
		}
		const editable = 64 << 10
		data.Editable = !w.Redacted && w.Literals == nil && len(w.Value) <= editable
		if data.Editable {
			data.Text = string(w.Value)
		}
	}
	return data, nil
}

const timeFormat = "2006-01-02 15:04:05.000 -07:00"

func (s *server) eventsPage() any {
	data := struct {
		frameData
		Kinds []string
	}{frameData: s.frame("events", "Events")}
	for kind := keepcache.EventKind(1); kindNames[kind.String()] == kind; kind <<= 1 {
		data.Kinds = append(data.Kinds, kind.String())
	}
	return data
}
