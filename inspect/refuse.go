package inspect

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keepcache/keepcache/internal/wire"
)

// Refusal is an error for Options.Authorize that chooses what the answer looks like.
type Refusal struct {
	Status  int         // of the answer, from 400 to 599. Default: 403.
	Header  http.Header // set in the answer, such as WWW-Authenticate. Default: none.
	Message string      // sent to the client. Default: "refused".
}

// Error returns the message.
func (e *Refusal) Error() string {
	if e.Message == "" {
		return "refused"
	}
	return e.Message
}

// BasicAuth returns a function for Options.Authorize that lets in who sends the user and the password by HTTP's basic
// authentication, and has a browser ask for them. An empty password is an error, so that a variable that is not set
// lets in nobody. Both are compared in constant time. They cross the network as they are: beyond the own machine use
// TLS.
func BasicAuth(user, password string) (func(*http.Request) error, error) {
	if password == "" {
		return nil, errors.New("keepcache: basic authentication: the password is empty")
	}
	wantUser, wantPassword := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(password))
	return func(r *http.Request) error {
		u, p, given := r.BasicAuth()
		gotUser, gotPassword := sha256.Sum256([]byte(u)), sha256.Sum256([]byte(p))
		same := subtle.ConstantTimeCompare(gotUser[:], wantUser[:]) & subtle.ConstantTimeCompare(gotPassword[:],
			wantPassword[:])
		if same == 1 {
			return nil
		}
		words := "a user and a password are needed"
		if given {
			words = "the user or the password is wrong"
		}
		return &Refusal{
			Status: http.StatusUnauthorized, Message: words,
			Header: http.Header{"Www-Authenticate": {`Basic realm="keepcache", charset="UTF-8"`}},
		}
	}, nil
}

// secure sets what keeps an answer from being more than it is: no script, style or frame of anybody else, no guessing
// of types, no copy in a cache.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	private(h)
}

// private sets the part of it that is about an answer without a page.
func private(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

// admit refuses requests that are not for this handler, by the name they use for it and by where they come from. page
// says that what is asked for is a page.
func (s *server) admit(r *http.Request, page bool) error {
	if !s.anyHost && !s.isHost(r.Host) {
		return fmt.Errorf("%w: it is not known by the name %.100q (inspect.Options.Hosts)", wire.ErrForbidden, r.Host)
	}
	if err := s.origins.Check(r); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrForbidden, err)
	}
	if fromElsewhere(r) && !(page && isNavigation(r)) {
		return fmt.Errorf("%w: the request comes from another site's page", wire.ErrForbidden)
	}
	return nil
}

// fromElsewhere reports whether a browser says that a page of another origin makes the request. Only the answer is kept
// from such a page, not the work for it, so it is refused before there is any.
func fromElsewhere(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "none", "same-origin":
		return false
	case "": // no browser, or one that does not say so of plain HTTP
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false
		}
		u, err := url.Parse(origin)
		return err != nil || !strings.EqualFold(u.Host, r.Host)
	}
	return true
}

// isNavigation reports whether a browser shows the answer as a page of its own: somebody followed a link.
func isNavigation(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" &&
		(r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// authorize asks the program.
func (s *server) authorize(r *http.Request) error {
	if s.o.Authorize == nil {
		return nil
	}
	if err := s.o.Authorize(r); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrForbidden, err)
	}
	return nil
}

// statusOf returns the status of the answer that an error is, and sets the headers that come with it.
func statusOf(h http.Header, err error) (f wire.Failure, status int) {
	f, status = wire.FailureOf(err)
	var refusal *Refusal
	if errors.As(err, &refusal) {
		for name, values := range refusal.Header {
			h[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
		if refusal.Status >= 400 && refusal.Status <= 599 {
			status = refusal.Status
		}
	}
	return f, status
}

// isHost reports whether a Host header names this server. A page of a foreign name whose address was turned to this
// machine sends that name.
func (s *server) isHost(host string) bool {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		if name = h; strings.HasPrefix(host, "[") {
			name = "[" + h + "]"
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok { // brackets are for IPv6 alone
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return strings.HasSuffix(inner, "]") && err == nil && addr.Is6() &&
			(addr.IsLoopback() || s.isOwnHost(inner[:len(inner)-1]))
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.IsLoopback() {
		return addr.Is4()
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost") && !strings.ContainsAny(name, ":/@[]") ||
		s.isOwnHost(name)
}

func (s *server) isOwnHost(name string) bool {
	return slices.ContainsFunc(s.o.Hosts,
		func(own string) bool { return name != "" && strings.EqualFold(strings.Trim(own, "[]"), name) })
}
