package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
)

// Errors of the protocol itself.
var (
	// ErrVersion: the two sides speak different versions of the protocol.
	ErrVersion = errors.New("the other side speaks another version of the inspection protocol")

	// ErrNoWrites: the server takes no writes (inspect.Options.AllowWrites).
	ErrNoWrites = errors.New("the running program allows no writes")

	// ErrNoValues: the server shows no values (inspect.Options.ShowValues), and what was asked for has them.
	ErrNoValues = errors.New("the running program shows no values")

	// ErrForbidden: the server refuses this client: its origin, the name it used for the server, or what the
	// program's own authentication says.
	ErrForbidden = errors.New("refused by the running program")

	// ErrBadRequest: the request makes no sense to the server.
	ErrBadRequest = errors.New("bad request")

	// ErrMethod is an ErrBadRequest: the endpoint takes another method.
	ErrMethod = fmt.Errorf("%w: wrong method", ErrBadRequest)

	// ErrBusy: as many such requests as the server allows are under way.
	ErrBusy = errors.New("too many requests of this kind")

	// ErrInternal is the rest.
	ErrInternal = errors.New("the running program failed")

	// ErrNoServer: nobody answers there, or not in this protocol.
	ErrNoServer = errors.New("no running program answers")
)

// codes are the errors that have a code, with the status of the answer. The first that matches is sent.
var codes = []struct {
	code   string
	err    error
	status int
}{
	{"version", ErrVersion, http.StatusNotFound},
	{"no_writes", ErrNoWrites, http.StatusForbidden},
	{"no_values", ErrNoValues, http.StatusForbidden},
	{"forbidden", ErrForbidden, http.StatusForbidden},
	{"bad_method", ErrMethod, http.StatusMethodNotAllowed},
	{"bad_request", ErrBadRequest, http.StatusBadRequest},
	{"busy", ErrBusy, http.StatusTooManyRequests},
	{"not_found", keepcache.ErrNotFound, http.StatusNotFound},
	{"corrupt", keepcache.ErrCorrupt, http.StatusInternalServerError},
	{"unknown_outcome", keepcache.ErrUnknownOutcome, http.StatusInternalServerError},
	{"no_room", keepcache.ErrNoRoom, http.StatusInsufficientStorage},
	{"contended", keepcache.ErrContended, http.StatusConflict},
	{"unavailable", keepcache.ErrUnavailable, http.StatusServiceUnavailable},
	{"closed", keepcache.ErrClosed, http.StatusServiceUnavailable},
	{"read_only", keepcache.ErrReadOnly, http.StatusForbidden},
	{"invalid_key", keepcache.ErrInvalidKey, http.StatusBadRequest},
	{"invalid_name", keepcache.ErrInvalidName, http.StatusBadRequest},
	{"invalid_tag", keepcache.ErrInvalidTag, http.StatusBadRequest},
	{"invalid_ttl", keepcache.ErrInvalidTTL, http.StatusBadRequest},
	{"too_large", keepcache.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{"unsupported_value", keepcache.ErrUnsupportedValue, http.StatusBadRequest},
	{"canceled", context.Canceled, http.StatusServiceUnavailable},
	{"timeout", context.DeadlineExceeded, http.StatusServiceUnavailable},
	{"internal", ErrInternal, http.StatusInternalServerError},
}

// Failure is the body of an answer that is an error, under the member "error".
type Failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Op      string `json:"op,omitempty"`
	Path    string `json:"path,omitempty"`
	Bucket  Name   `json:"bucket,omitempty"`
	Key     Name   `json:"key,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// FailureOf returns what to send for an error, and the status of the answer.
func FailureOf(err error) (Failure, int) {
	f := Failure{Code: "internal", Message: err.Error()}
	status := http.StatusInternalServerError
	for _, c := range codes {
		if errors.Is(err, c.err) {
			f.Code, status = c.code, c.status
			break
		}
	}
	var e *keepcache.Error
	if errors.As(err, &e) {
		f.Message = e.Err.Error()
		f.Op, f.Path, f.Bucket, f.Key, f.Hint = e.Op, e.Path, Name(e.Bucket), Name(e.Key), e.Hint
	}
	f.Message = strings.ToValidUTF8(f.Message, "\ufffd")
	return f, status
}

// mostWords bounds what is shown of the words of the other side.
const mostWords = 4096

// Err returns the error that was sent: errors.Is finds the same cause in it, and an error of the library is a
// *keepcache.Error with the same words. Its words are those of another process, and are made fit to be shown.
func (f Failure) Err() error {
	f.Message, f.Op = display.Text(f.Message, mostWords), display.Text(f.Op, 40)
	f.Hint = display.Text(f.Hint, mostWords) // names and the path are quoted where they are shown
	cause := ErrInternal
	for _, c := range codes {
		if c.code == f.Code {
			cause = c.err
		}
	}
	err := error(&remote{message: f.Message, cause: cause})
	if f.Op != "" {
		err = &keepcache.Error{Op: f.Op, Path: f.Path, Bucket: string(f.Bucket), Key: string(f.Key), Err: err, Hint: f.Hint}
	}
	return err
}

// remote is an error that has come over the wire.
type remote struct {
	message string
	cause   error
}

func (r *remote) Error() string {
	if r.message == "" {
		return r.cause.Error()
	}
	return r.message
}

func (r *remote) Unwrap() error { return r.cause }
