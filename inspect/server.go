package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

// server answers the requests of one handler.
type server struct {
	db      *keepcache.DB
	o       Options
	path    string
	since   time.Time
	anyHost bool // the request came through a socket, where no name is of any use to anybody

	origins *http.CrossOriginProtection
	closing context.Context // ends when the cache is closed

	streams chan struct{} // holds a token for each event stream
	long    chan struct{} // holds a token for long work, one at a time

	history history
	survey  survey
}

// Handler returns a handler that shows db. It may be mounted under any path that ends in a slash, with http.StripPrefix
// or without. nil options are the defaults. It samples Stats in the background until db is closed.
func Handler(db *keepcache.DB, options *Options) http.Handler { return newServer(db, options) }

func newServer(db *keepcache.DB, options *Options) *server {
	s := &server{
		db: db, o: options.withDefaults(), path: db.Path(), since: time.Now(),
		origins: http.NewCrossOriginProtection(),
		long:    make(chan struct{}, 1),
	}
	s.streams = make(chan struct{}, s.o.Streams)
	if s.o.Title == "" {
		s.o.Title = filepath.Base(s.path)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.closing = ctx
	db.OnClose(stop)
	go s.history.run(ctx, db.Stats)
	return s
}

// endpoint answers one path of the protocol. What it returns is sent as JSON, unless it has answered by itself and
// returns nothing.
type endpoint struct {
	method string
	answer func(s *server, w http.ResponseWriter, r *http.Request) (any, error)
	writes bool // only where writes are allowed
	long   bool // one at a time, and for as long as the request lasts
	stream bool // for as long as the request lasts
}

var endpoints = map[string]endpoint{
	"":        {method: http.MethodGet, answer: (*server).hello},
	"stats":   {method: http.MethodGet, answer: (*server).stats},
	"buckets": {method: http.MethodGet, answer: (*server).buckets},
	"keys":    {method: http.MethodGet, answer: (*server).keys},
	"entry":   {method: http.MethodGet, answer: (*server).entry},
	"exists":  {method: http.MethodGet, answer: (*server).exists},
	"biggest": {method: http.MethodGet, answer: (*server).biggest, long: true},
	"soonest": {method: http.MethodGet, answer: (*server).soonest},
	"events":  {method: http.MethodGet, answer: (*server).events, stream: true},

	"verify":     {method: http.MethodPost, answer: (*server).verify, long: true},
	"set":        {method: http.MethodPost, answer: (*server).set, writes: true},
	"add":        {method: http.MethodPost, answer: (*server).add, writes: true},
	"delete":     {method: http.MethodPost, answer: (*server).delete, writes: true},
	"touch":      {method: http.MethodPost, answer: (*server).touch, writes: true},
	"invalidate": {method: http.MethodPost, answer: (*server).invalidate, writes: true},
	"clear":      {method: http.MethodPost, answer: (*server).clear, writes: true, long: true},
	"sweep":      {method: http.MethodPost, answer: (*server).sweep, writes: true, long: true},
	"compact":    {method: http.MethodPost, answer: (*server).compact, writes: true, long: true},
	"backup":     {method: http.MethodPost, answer: (*server).backup, writes: true, long: true},
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	dir, name := path.Split(r.URL.Path)
	version := path.Base(dir)
	api := isVersion(version)
	if api {
		w.Header().Set(wire.VersionHeader, strconv.Itoa(wire.Version))
	}
	fail := func(err error) {
		if api {
			s.fail(w, err)
		} else {
			s.failPage(w, r, err)
		}
	}
	if err := s.admit(r); err != nil {
		fail(err)
		return
	}
	if api {
		s.serveAPI(w, r, version, name)
		return
	}
	s.servePage(w, r, name, fail)
}

// isVersion reports whether a part of a path names a version of the protocol.
func isVersion(part string) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(part, "v"))
	return strings.HasPrefix(part, "v") && err == nil && n > 0
}

// secure sets what keeps an answer from being more than it is: no script, style or frame of anybody else, no guessing of
// types, no copy in a cache.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// admit refuses requests that are not for this handler.
func (s *server) admit(r *http.Request) error {
	if err := s.closing.Err(); err != nil {
		return keepcache.ErrClosed
	}
	if !s.anyHost && !s.isHost(r.Host) {
		return fmt.Errorf("%w: it is not known by the name %.100q (inspect.Options.Hosts)", wire.ErrForbidden, r.Host)
	}
	if err := s.origins.Check(r); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrForbidden, err)
	}
	if s.o.Authorize != nil {
		if err := s.o.Authorize(r); err != nil {
			return fmt.Errorf("%w: %w", wire.ErrForbidden, err)
		}
	}
	return nil
}

// isHost reports whether a Host header names this server. A page of a foreign name whose address was turned to this
// machine sends that name.
func (s *server) isHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(s.o.Hosts, func(own string) bool { return strings.EqualFold(own, host) })
}

func (s *server) serveAPI(w http.ResponseWriter, r *http.Request, version, name string) {
	answer, err := s.call(w, r, version, name)
	switch {
	case err != nil:
		s.fail(w, err)
	case answer != nil:
		w.Header().Set("Content-Type", wire.TypeJSON)
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func (s *server) call(w http.ResponseWriter, r *http.Request, version, name string) (any, error) {
	if version != "v"+strconv.Itoa(wire.Version) {
		return nil, fmt.Errorf("%w: this is version %d", wire.ErrVersion, wire.Version)
	}
	e, ok := endpoints[name]
	switch {
	case !ok:
		return nil, badRequest("there is no %.100q", name)
	case r.Method != e.method && !(r.Method == http.MethodHead && e.method == http.MethodGet):
		w.Header().Set("Allow", e.method)
		return nil, badRequest("%s takes %s and not %.20q", name, e.method, r.Method)
	case e.writes && !s.o.AllowWrites:
		return nil, fmt.Errorf("%w (inspect.Options.AllowWrites)", wire.ErrNoWrites)
	}
	ctx, stop := context.WithCancel(r.Context())
	if !e.long && !e.stream {
		ctx, stop = context.WithTimeout(r.Context(), s.o.Timeout)
	}
	defer stop()
	defer context.AfterFunc(s.closing, stop)()
	if e.long {
		select {
		case s.long <- struct{}{}:
			defer func() { <-s.long }()
		default:
			return nil, wire.ErrBusy
		}
	}
	return e.answer(s, w, r.WithContext(ctx))
}

// fail answers with an error.
func (s *server) fail(w http.ResponseWriter, err error) {
	f, status := wire.FailureOf(err)
	w.Header().Set("Content-Type", wire.TypeJSON)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]wire.Failure{"error": f})
}

func badRequest(format string, args ...any) error {
	return fmt.Errorf("%w: %w", wire.ErrBadRequest, fmt.Errorf(format, args...))
}

func (s *server) hello(http.ResponseWriter, *http.Request) (any, error) {
	return wire.Hello{
		Version: wire.Version, Path: wire.Name(s.path), PID: os.Getpid(), Program: program(),
		Since: s.since.UnixMilli(), Now: time.Now().UnixMilli(),
		Values: s.o.ShowValues, Writes: s.o.AllowWrites, Page: s.o.PageEntries,
	}, nil
}

// program names the program that serves, as far as it knows itself.
func program() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return strings.TrimSpace(info.Main.Path + " " + info.Main.Version)
}

// body reads the body of a POST.
func body(w http.ResponseWriter, r *http.Request) (b wire.Write, err error) {
	const overhead = 1 << 20 // names, and the members around the value
	if kind := r.Header.Get("Content-Type"); kind != wire.TypeJSON {
		return b, badRequest("the body is %.50q and not %s", kind, wire.TypeJSON)
	}
	// A byte of a value is six characters at worst.
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 6*mostValueBytes+overhead))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return b, fmt.Errorf("%w: the request", keepcache.ErrTooLarge)
		}
		return b, badRequest("%w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return b, badRequest("there is something behind the object")
	}
	if b.Bucket == "" {
		b.Bucket = keepcache.DefaultBucket
	}
	return b, nil
}

// mostValueBytes is the largest value to take over HTTP: the library's own default. It bounds what one request makes
// the program hold.
const mostValueBytes = 64 << 20
