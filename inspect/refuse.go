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

// Refusal is an error that Options.Authorize can return to choose the answer.
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

// BasicAuth returns a function for Options.Authorize that requires this user and password by HTTP basic authentication.
// Browsers ask for them. An empty password is an error, so that an unset variable does not let everybody in. User and
// password are compared in constant time. They are sent unencrypted: use TLS for anything but the local machine.
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

// secure sets the security headers of an answer: no foreign scripts, styles or frames, no guessing of content types,
// and no copies in HTTP caches.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	private(h)
}

// private sets the security headers that also matter for answers that are not pages.
func private(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

// admit refuses requests with a foreign host or from a foreign origin. page says that the request is for a page.
func (s *server) admit(r *http.Request, page bool) error {
	if !s.anyHost && !s.isHost(r.Host) {
		return fmt.Errorf("%w: the host %.100q is not allowed (inspect.Options.Hosts allows hosts)", wire.ErrForbidden,
			r.Host)
	}
	if err := s.origins.Check(r); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrForbidden, err)
	}
	if fromElsewhere(r) && !(page && isNavigation(r)) {
		return fmt.Errorf("%w: the request comes from a page of another site", wire.ErrForbidden)
	}
	return nil
}

// fromElsewhere reports whether a browser says that a page of another origin makes the request. A browser hides the
// answer from such a page, but the server would still do the work. So the request is refused before any work is done.
func fromElsewhere(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "none", "same-origin":
		return false
	case "": // not a browser, or one that does not send the header over plain HTTP
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false
		}
		u, err := url.Parse(origin)
		return err != nil || !strings.EqualFold(u.Host, r.Host)
	}
	return true
}

// isNavigation reports whether a browser shows the answer as a top-level page, as after a click on a link.
func isNavigation(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" &&
		(r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// authorize calls Options.Authorize.
func (s *server) authorize(r *http.Request) error {
	if s.o.Authorize == nil {
		return nil
	}
	if err := s.o.Authorize(r); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrForbidden, err)
	}
	return nil
}

// statusOf returns the failure and the status with which err is answered, and sets the headers of a Refusal.
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

// isHost reports whether the host of a request is allowed. A foreign page whose DNS name was redirected to this machine
// sends that name.
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
