package inspect

import (
	"bytes"
	"embed"
	"encoding/base64"
	"encoding/json"
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
	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

//go:embed assets
var assets embed.FS

var pages = template.Must(template.ParseFS(assets, "assets/page.html"))

// files are the style sheet, script and icon of the pages, with their content types.
var files = map[string]string{
	"style.css": "text/css; charset=utf-8",
	"script.js": "text/javascript; charset=utf-8",
	"icon.svg":  "image/svg+xml",
}

// frame has the parts that every page shows.
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

// pageNames are the pages that a link may lead to.
var pageNames = map[string]bool{"": true, "keys": true, "entry": true, "events": true}

// servePage answers requests outside of the protocol.
func (s *server) servePage(v *visit, name string, fail func(error)) {
	if !isGet(v.r) {
		v.w.Header().Set("Allow", "GET, HEAD")
		fail(fmt.Errorf("%w: pages are for GET", wire.ErrMethod))
		return
	}
	if u, err := url.ParseRequestURI(v.r.RequestURI); v.r.URL.Path == "" && err == nil && !strings.HasSuffix(u.Path, "/") {
		// StripPrefix left nothing: the slash at the end is missing, and without it relative links are wrong.
		base := path.Base(u.EscapedPath())
		v.w.Header().Set("Location", base+"/")
		v.w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	if err := v.take(s.answers); err != nil {
		fail(err)
		return
	}
	v.within(s.o.Timeout)
	if err := v.enter(); err != nil {
		fail(err)
		return
	}
	var data any
	var err error
	shown := name
	switch name {
	case "metrics":
		v.metrics(fail)
		return
	case "":
		shown, data = "overview", s.overview()
	case "keys":
		data, err = s.keysPage(v)
	case "entry":
		data, err = s.entryPage(v)
	case "events":
		data = s.eventsPage()
	default:
		err = noPage(name)
	}
	if err != nil {
		fail(err)
		return
	}
	v.send(pageType, http.StatusOK, func(buf *bytes.Buffer) error { return pages.ExecuteTemplate(buf, shown, data) }, fail)
}

const pageType = "text/html; charset=utf-8"

// serveFile answers with one of the files, which are the same for everybody.
func serveFile(v *visit, name, kind string) {
	text, _ := assets.ReadFile("assets/" + name) // exists, because it is one of the files
	v.w.Header().Set("Content-Type", kind)
	_, _ = v.patient(int64(len(text))).Write(text)
}

// failPage shows an error to an authorized client.
func (v *visit) failPage(err error) {
	f, status := statusOf(v.w.Header(), err)
	v.errorPage(status, "error", struct {
		frameData
		Status, Message string
	}{v.s.frame("error", http.StatusText(status)), http.StatusText(status), pageWords(f.Message)})
}

// refusePage tells a client that it is refused, and nothing about the cache.
func (v *visit) refusePage(err error) {
	f, status := statusOf(v.w.Header(), err)
	v.errorPage(status, "refused", struct{ Status, Message string }{http.StatusText(status), pageWords(f.Message)})
}

// pageWords returns the text of an error for a page, without the status, which is in the heading above it.
func pageWords(message string) string {
	for _, kind := range []error{wire.ErrMethod, wire.ErrBadRequest, wire.ErrForbidden, wire.ErrBusy} {
		if rest, ok := strings.CutPrefix(message, kind.Error()+": "); ok && rest != "" {
			message = rest
		}
	}
	if rest, ok := strings.CutSuffix(message, ": "+keepcache.ErrNotFound.Error()); ok && rest != "" {
		message = rest
	}
	return display.Text(message, 1000)
}

func (v *visit) errorPage(status int, name string, data any) {
	v.w.Header().Set("Content-Type", pageType)
	v.w.WriteHeader(status)
	_ = pages.ExecuteTemplate(v.patient(0), name, data)
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
		Written:    age(now.Sub(time.UnixMilli(e.WrittenAt))),
		WrittenISO: time.UnixMilli(e.WrittenAt).UTC().Format(time.RFC3339),
	}
	if e.ExpiresAt != 0 {
		r.Until = e.ExpiresAt
		r.Life = span(min(time.UnixMilli(e.ExpiresAt).Sub(now), keepcache.NoExpiry-1)) // Sub saturates
	}
	for _, tag := range e.Tags {
		r.Tags = append(r.Tags, shorten(display.Name(string(tag)), 32))
	}
	return r
}

// age says how long ago something was.
func age(d time.Duration) string {
	if d < time.Second {
		return "just now"
	}
	return span(d) + " ago"
}

// Links percent-encode the bytes of names.
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

// typedName parses a name that a person typed. It may be quoted, in the form in which names are shown.
func typedName(text string) string {
	if strings.HasPrefix(text, `"`) {
		if name, err := strconv.Unquote(text); err == nil {
			return name
		}
	}
	return text
}

// keysPage is the page of the keys of a bucket.
func (s *server) keysPage(v *visit) (any, error) {
	form := v.r.URL.Query()
	bucket := form.Get("bucket")
	if text := form.Get("bucket64"); text != "" {
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
	q, err := s.query(v.r)
	if err != nil {
		return nil, err
	}
	typed := form.Get("prefix")
	prefix := typedName(typed)
	q.bucket, q.scan.Prefix, q.tag = bucket, prefix, typedName(form.Get("tag"))
	if q.match != nil {
		q.scan.Prefix, q.none = narrower(prefix, q.match.Prefix)
	}
	q.values = false
	page, _, err := s.page(v, q)
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
		Prefix:   typed, Glob: form.Get("glob"), Tag: form.Get("tag"), Clear: keysHref("bucket", bucket),
	}
	data.Buckets, data.MoreBuckets = bucketRows(stats, bucket)
	data.Filtered = data.Prefix+data.Glob+data.Tag != ""
	for _, e := range page.Entries {
		data.Rows = append(data.Rows, rowOf(e, now))
	}
	same := []string{"bucket", bucket, "prefix", data.Prefix, "glob", data.Glob, "tag", data.Tag, "limit",
		form.Get("limit")}
	if q.scan.After != "" {
		data.First = keysHref(same...)
	}
	if page.Next != nil {
		data.Next = keysHref(append(same, "after", string(*page.Next))...)
	}
	switch {
	case page.Next != nil && len(page.Entries) == 0:
		data.Nothing = "No match so far."
	case data.Filtered:
		data.Nothing = "No key matches."
	default:
		data.Nothing = "No keys."
	}
	data.Looked = fmt.Sprintf("%s shown, %s scanned", count(len(page.Entries)), count(page.Looked))
	if page.Damaged > 0 {
		data.Damaged = fmt.Sprintf("%s damaged, not shown. Run keepcache verify for details.", count(page.Damaged))
	}
	return data, nil
}

// fact is a line of a list of facts.
type fact struct{ Label, Value string }

// entryPage is the page of one entry.
func (s *server) entryPage(v *visit) (any, error) {
	q, err := s.named(v.r)
	if err != nil {
		return nil, err
	}
	e, err := s.find(v, q)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	w := s.entryOf(q.bucket, e)
	value, redacted, err := s.shown(v.ctx, q.bucket, e)
	if err != nil {
		return nil, err
	}
	bucketName, _ := json.Marshal(wire.Name(q.bucket)) // cannot fail for a name
	keyName, _ := json.Marshal(wire.Name(q.key))
	data := struct {
		frameData
		Bucket, Key         string
		BucketHref          template.URL
		BucketName, KeyName string
		Until, From         int64
		Life, LifePart      string
		Expires, StaleUntil string
		Facts               []fact
		Tags                []string
		Value               *node
		Redacted            bool
		NoValue, Cut, Text  string
		Editable            bool
		TTL                 string
	}{
		frameData: s.frame("entry", shorten(display.Name(q.key), 60)), Bucket: display.Name(q.bucket),
		Key:        display.Name(q.key),
		BucketHref: keysHref("bucket", q.bucket), BucketName: string(bucketName), KeyName: string(keyName),
		Facts: []fact{
			{"Size of the encoded value", size(int64(e.Size))},
			{"Written", e.WrittenAt.Format(timeFormat)},
			{"Revision", count(e.Revision)},
		},
		Redacted: redacted, TTL: "never",
	}
	if !e.ExpiresAt.IsZero() {
		data.Until, data.From = w.ExpiresAt, w.WrittenAt
		left := min(e.ExpiresAt.Sub(now), keepcache.NoExpiry-1) // Sub saturates
		data.Life, data.Expires = span(left), e.ExpiresAt.Format(timeFormat)
		data.LifePart = fixed(1000 * part(int64(left), int64(e.ExpiresAt.Sub(e.WrittenAt))))
		data.TTL = strconv.FormatInt(max(1, int64(left.Round(time.Second)/time.Second)), 10) + "s"
		if e.StaleUntil.After(e.ExpiresAt) {
			data.StaleUntil = e.StaleUntil.Format(timeFormat)
		}
	}
	if !e.LoadedAt.IsZero() {
		data.Facts = append(data.Facts, fact{"Loaded", e.LoadedAt.Format(timeFormat)})
	}
	if w.ETag != "" {
		data.Facts = append(data.Facts, fact{"ETag", display.Name(string(w.ETag))})
	}
	for _, tag := range e.Tags {
		data.Tags = append(data.Tags, display.Name(tag))
	}
	switch {
	case value == nil && !s.o.ShowValues:
		data.NoValue = "Values are hidden. Set inspect.Options.ShowValues to show them."
	case value == nil:
		data.NoValue = "This value is not shown."
	default:
		if data.Value, data.Cut, err = tree(v.ctx, value); err != nil {
			return nil, err
		}
		const editable = 64 << 10
		text, places, whole, err := jsontext.AppendSome(v.ctx, nil, value, editable)
		if err != nil {
			return nil, err
		}
		if data.Editable = !redacted && places == nil && whole; data.Editable {
			data.Text = string(text)
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
