package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/wire"
)

// server answers the requests of one handler.
type server struct {
	db      *keepcache.DB
	o       Options
	path    string
	since   time.Time
	anyHost bool // any host is allowed: the server is on a socket, which no DNS name leads to

	origins *http.CrossOriginProtection
	closing context.Context // ends when the cache is closed

	bounds
	history history
	survey  survey
}

// Handler returns a handler that serves db for inspection. It may be mounted under any path that ends in a slash: on an
// http.ServeMux with or without http.StripPrefix, on any other router with it. If options is nil, the defaults apply.
// The handler samples Stats in the background until db is closed.
func Handler(db *keepcache.DB, options *Options) http.Handler { return newServer(db, options) }

func newServer(db *keepcache.DB, options *Options) *server {
	s := &server{
		db: db, o: options.withDefaults(), path: db.Path(), since: time.Now(),
		origins: http.NewCrossOriginProtection(),
	}
	s.bounds = newBounds(s.o.Streams)
	if s.o.Title == "" {
		s.o.Title = filepath.Base(s.path)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.closing = ctx
	db.OnClose(stop)
	go s.history.run(ctx, db.Stats)
	return s
}

// endpoint answers one path of the protocol. Its result is sent as JSON. A nil result means that it has already sent
// the answer.
type endpoint struct {
	method string
	answer func(s *server, v *visit) (any, error)
	writes bool // only where writes are allowed
	long   bool // one at a time, and for as long as the request lasts
	stream bool // for as long as the request lasts
}

var endpoints = map[string]endpoint{
	"":         {method: http.MethodGet, answer: (*server).hello},
	"stats":    {method: http.MethodGet, answer: (*server).stats},
	"buckets":  {method: http.MethodGet, answer: (*server).buckets},
	"keys":     {method: http.MethodGet, answer: (*server).keys},
	"entry":    {method: http.MethodGet, answer: (*server).entry},
	"exists":   {method: http.MethodGet, answer: (*server).exists},
	"biggest":  {method: http.MethodGet, answer: (*server).biggest, long: true},
	"expiring": {method: http.MethodGet, answer: (*server).expiring},
	"events":   {method: http.MethodGet, answer: (*server).events, stream: true},

	"verify":     {method: http.MethodPost, answer: (*server).verify, long: true},
	"set":        {method: http.MethodPost, answer: (*server).set, writes: true},
	"restore":    {method: http.MethodPost, answer: (*server).restore, writes: true},
	"add":        {method: http.MethodPost, answer: (*server).add, writes: true},
	"delete":     {method: http.MethodPost, answer: (*server).delete, writes: true},
	"touch":      {method: http.MethodPost, answer: (*server).touch, writes: true},
	"increment":  {method: http.MethodPost, answer: (*server).increment, writes: true},
	"invalidate": {method: http.MethodPost, answer: (*server).invalidate, writes: true},
	"clear":      {method: http.MethodPost, answer: (*server).clear, writes: true, long: true},
	"sweep":      {method: http.MethodPost, answer: (*server).sweep, writes: true, long: true},
	"compact":    {method: http.MethodPost, answer: (*server).compact, writes: true, long: true},
	"backup":     {method: http.MethodPost, answer: (*server).backup, long: true},
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	rest, exact := route(r)
	number, name, api := version(rest)
	if api {
		w.Header().Set(wire.VersionHeader, strconv.Itoa(wire.Version))
	}
	v := s.begin(w, r)
	defer v.end()
	refuse := func(err error) {
		if api {
			v.fail(err)
		} else {
			v.refusePage(err)
		}
	}
	kind, isFile := files[rest]
	switch err := s.admit(r, pageNames[rest]); {
	case s.closing.Err() != nil:
		refuse(keepcache.ErrClosed)
		return
	case err != nil:
		refuse(err)
		return
	case isFile && exact && isGet(r):
		// Before authorize: these files are the same for every cache, and the page of a refusal needs them.
		serveFile(v, rest, kind)
		return
	}
	if err := s.authorize(r); err != nil {
		refuse(err)
		return
	}
	fail := func(err error) {
		v.leave()
		if api {
			v.fail(err)
		} else {
			v.failPage(err)
		}
	}
	switch {
	case !exact:
		fail(noPage(rest))
	case api:
		s.serveAPI(v, number, name, fail)
	default:
		s.servePage(v, rest, fail)
	}
}

func isGet(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

func noPage(name string) error {
	return fmt.Errorf("there is no page %s: %w", display.Name(shorten(name, 80)), keepcache.ErrNotFound)
}

func (s *server) serveAPI(v *visit, number int, name string, fail func(error)) {
	answer, err := s.call(v, number, name)
	if err != nil {
		fail(err)
		return
	}
	switch answer := answer.(type) {
	case nil: // it has already sent the answer
	case *outsize:
		v.leave()
		answer.send(v)
	default:
		v.send(wire.TypeJSON, http.StatusOK, func(buf *bytes.Buffer) error { return json.NewEncoder(buf).Encode(answer) },
			fail)
	}
}

// send sends what fill puts into a buffer.
func (v *visit) send(kind string, status int, fill func(*bytes.Buffer) error, fail func(error)) {
	var buf bytes.Buffer
	err := fill(&buf)
	if err == nil {
		err = v.hold(buf.Len())
	}
	if err != nil {
		fail(err)
		return
	}
	v.w.Header().Set("Content-Type", kind)
	v.w.WriteHeader(status)
	_, _ = v.patient(int64(buf.Len())).Write(buf.Bytes())
}

func (s *server) call(v *visit, number int, name string) (any, error) {
	if number != wire.Version {
		return nil, fmt.Errorf("%w: this is version %d", wire.ErrVersion, wire.Version)
	}
	e, ok := endpoints[name]
	switch {
	case !ok:
		return nil, badRequest("there is no %.100q", name)
	case v.r.Method != e.method && !(v.r.Method == http.MethodHead && e.method == http.MethodGet):
		allow := e.method
		if allow == http.MethodGet {
			allow = "GET, HEAD"
		}
		v.w.Header().Set("Allow", allow)
		return nil, fmt.Errorf("%w: %s takes %s and not %.20q", wire.ErrMethod, name, allow, v.r.Method)
	case e.writes && !s.o.AllowWrites:
		return nil, fmt.Errorf("%w (inspect.Options.AllowWrites)", wire.ErrNoWrites)
	}
	if e.method == http.MethodPost {
		if err := checkJSON(v.r); err != nil {
			return nil, err
		}
	}
	if e.stream {
		v.within(0)
		return e.answer(s, v)
	}
	if err := v.take(s.answers); err != nil {
		return nil, err
	}
	if e.long {
		v.within(0)
		if err := v.take(s.long); err != nil {
			return nil, err
		}
	} else {
		v.within(s.o.Timeout)
	}
	return e.answer(s, v)
}

// fail answers with an error.
func (v *visit) fail(err error) {
	f, status := statusOf(v.w.Header(), err)
	v.w.Header().Set("Content-Type", wire.TypeJSON)
	v.w.WriteHeader(status)
	_ = json.NewEncoder(v.patient(0)).Encode(map[string]wire.Failure{"error": f})
}

func badRequest(format string, args ...any) error {
	return fmt.Errorf("%w: %w", wire.ErrBadRequest, fmt.Errorf(format, args...))
}

func (s *server) hello(*visit) (any, error) {
	return wire.Hello{
		Version: wire.Version, Path: wire.Name(s.path), PID: os.Getpid(), Program: program(),
		Since: s.since.UnixMilli(), Now: time.Now().UnixMilli(),
		Values: s.o.ShowValues, Writes: s.o.AllowWrites, Page: s.o.PageEntries,
	}, nil
}

// program returns the module path and version of this program, if they are known.
func program() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return strings.TrimSpace(info.Main.Path + " " + info.Main.Version)
}
