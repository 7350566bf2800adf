package keepcache

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/keepcache/keepcache/internal/errs"
)

// Errors of opening a cache.
var (
	// ErrLocked is returned by Open if another process, or another DB in this one, holds the file and does not release it
	// within Options.LockTimeout.
	ErrLocked = errs.ErrLocked

	// ErrFormat is returned by Open for a file that is not a keepcache file, or that a newer version wrote. The file stays
	// as it is.
	ErrFormat = errs.ErrFormat

	// ErrReadOnly is returned by every write to a DB that was opened with Options.ReadOnly.
	ErrReadOnly = errs.ErrReadOnly

	// ErrClosed is returned by every call after Close.
	ErrClosed = errs.ErrClosed
)

// Errors of a call's arguments. The cache is unchanged.
var (
	// ErrInvalidOption is returned by Open and by loads for an option that is out of its range. The error says which.
	ErrInvalidOption = errors.New("invalid option")

	// ErrOtherDB is returned by Apply for a Batch with a bucket of another DB.
	ErrOtherDB = errors.New("the batch has a bucket of another DB")

	// ErrInvalidKey: a key is 1 to MaxKeyBytes bytes long.
	ErrInvalidKey = errs.ErrInvalidKey

	// ErrInvalidName: a bucket's name is 1 to MaxNameBytes bytes long.
	ErrInvalidName = errs.ErrInvalidName

	// ErrInvalidTag: a tag is 1 to MaxTagBytes bytes long, and an entry has MaxTags of them at most.
	ErrInvalidTag = errors.New("invalid tag")

	// ErrInvalidTTL: a lifetime is not negative.
	ErrInvalidTTL = errors.New("invalid lifetime")

	// ErrTooLarge: the encoded value is larger than Options.MaxValueBytes, the entry is larger than the budget, or an ETag
	// is longer than MaxETagBytes.
	ErrTooLarge = errs.ErrTooLarge

	// ErrUnsupportedValue: JSON cannot express the value.
	ErrUnsupportedValue = errors.New("unsupported value")

	// ErrMismatch: the stored value does not fit the type of the destination, as after a program has changed its types.
	// GetOrLoad and GetOrLoadMany treat such a value as absent and load it anew.
	ErrMismatch = errors.New("the value does not fit the destination")
)

// Errors of the value that is there. The cache is unchanged.
var (
	// ErrNoValue is what Decode and AppendJSON return for an Entry that came without its value, such as those of
	// DB.Expiring and of scans with ScanOptions.KeysOnly.
	ErrNoValue = errors.New("the entry has no value")

	// ErrNotInteger says that an Increment met a value that is not an integer of 64 bits with a sign.
	ErrNotInteger = errors.New("the value is not an integer of 64 bits")
	// ErrOverflow says that the sum of an Increment does not fit its type.
	ErrOverflow = errors.New("the sum does not fit")
)

// Errors of loaders.
var (
	// ErrNotFound is what a loader returns, as it is or wrapped, if there is no such thing. GetOrLoad then returns it too,
	// and for LoadOptions.NegativeTTL without another load.
	ErrNotFound = errors.New("not found")

	// ErrLoadCycle is what a loader gets that asks for its own key, or for one whose loader waits for it, directly or
	// through others, in whatever bucket or DB: all of them would wait for ever. It is found by the ctx that loaders are
	// given. Loads that are nested more than 1,000 deep give it too.
	ErrLoadCycle = errors.New("loads wait for each other")
)

// Errors of writes that came at a bad moment.
var (
	// ErrNoRoom says that memory and journal are full of writes that the file does not have yet, and that the file takes
	// none: the disk is too slow and the call has waited 5 seconds, or commits fail. If they fail, errors.Is also finds
	// the cause. The call has changed nothing.
	ErrNoRoom = errs.ErrNoRoom

	// ErrContended says that others changed the key again and again between the call's look at it and its write, until the
	// call gave up; or that the function of an Update changed the key itself. The call has changed nothing.
	ErrContended = errs.ErrContended

	// ErrUnknownOutcome says that the disk failed during a write. The write is seen as long as the cache is open; after
	// that it may or may not be there. errors.Is also finds the cause.
	ErrUnknownOutcome = errs.ErrUnknownOutcome
)

// Errors of a file that is in trouble.
var (
	// ErrUnavailable says that the file cannot be used for the moment: its disk fails, or it was damaged, cut short or
	// taken away while it was open. errors.Is also finds the cause. Meanwhile plain reads find what memory has and
	// otherwise miss; plain writes go into memory and journal while there is room; and what depends on stored data, such
	// as Add, Increment, Update, Touch and ranges, returns ErrUnavailable. The cache repairs itself in the background.
	ErrUnavailable = errs.ErrUnavailable
)

// Errors of the stored data.
var (
	// ErrCorrupt says that stored bytes are not what was written. Plain reads treat a damaged entry as absent. What
	// depends on the stored value, such as Add and Touch, returns ErrCorrupt. Set and Delete replace and remove the entry.
	ErrCorrupt = errs.ErrCorrupt
)

// Error is the error of every operation: what was done, to what, and why it failed. errors.Is and errors.As find the
// cause.
type Error struct {
	Op     string // the operation: "open", "get", "set"
	Path   string // the cache's file
	Bucket string // the bucket, where there is one
	Key    string // the key, where there is one
	Err    error  // the cause, never nil
	Hint   string // what an operator can do about it, if anything
}

// opLoad is the operation of GetOrLoad and GetOrLoadMany.
const opLoad = "load"

// Error returns `keepcache: operation "object": cause`, followed by the hint in parentheses. Long keys are shortened.
//
// The error of a load may be shown to those who asked for the value. So it begins with the cause, mostly the loader's
// own error, and does not have the path: `cause (load "key")`, or `cause (load "key" in bucket "users", remembered)`
// for a *RememberedError.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op == opLoad {
		e.appendLoad(&b)
		return b.String()
	}
	b.WriteString("keepcache: ")
	b.WriteString(e.Op)
	e.appendObject(&b)
	if e.Path != "" {
		if e.Key != "" || e.Bucket != "" {
			b.WriteString(" of")
		}
		b.WriteString(" " + quotePath(e.Path, os.PathSeparator))
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// appendObject appends what the operation was done to.
func (e *Error) appendObject(b *strings.Builder) {
	switch {
	case e.Key != "":
		b.WriteString(" " + errs.Quote(e.Key))
		if e.Bucket != "" && e.Bucket != DefaultBucket {
			b.WriteString(" in bucket " + errs.Quote(e.Bucket))
		}
	case e.Bucket != "":
		b.WriteString(" bucket " + errs.Quote(e.Bucket))
	}
}

// appendLoad is Error for a load.
func (e *Error) appendLoad(b *strings.Builder) {
	b.WriteString(e.Err.Error())
	b.WriteString(" (" + opLoad)
	e.appendObject(b)
	if _, ok := e.Err.(*RememberedError); ok {
		b.WriteString(", remembered")
	}
	b.WriteString(")")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// quotePath quotes a path. It does not double a separator that is a backslash, so that the path can be copied.
func quotePath(path string, separator rune) string {
	quoted := strconv.Quote(path)
	if separator == '\\' {
		quoted = strings.ReplaceAll(quoted, `\\`, `\`)
	}
	return quoted
}
