package keepcache

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

// appendValue appends the encoding of v, which may have limit bytes, to dst.
func appendValue(dst []byte, v any, limit int) ([]byte, error) {
	dst, err := jsonpack.Append(dst, v, limit)
	return dst, valueError(err, limit)
}

// appendBytes is appendValue for raw bytes.
func appendBytes(dst, v []byte, limit int) ([]byte, error) {
	dst, err := jsonpack.AppendBytes(dst, v, limit)
	return dst, valueError(err, limit)
}

func valueError(err error, limit int) error {
	switch {
	case errors.Is(err, jsonpack.ErrTooLarge):
		return fmt.Errorf("%w: its encoding passes %d bytes", ErrTooLarge, limit)
	case errors.Is(err, jsonpack.ErrUnsupported):
		return unsupported{err}
	}
	return err
}

// unsupported is an ErrUnsupportedValue whose cause has the same words already.
type unsupported struct{ cause error }

func (e unsupported) Error() string        { return e.cause.Error() }
func (e unsupported) Is(target error) bool { return target == ErrUnsupportedValue }
func (e unsupported) Unwrap() error        { return e.cause }

// decodeValue decodes into dst, a pointer, what appendValue made or format.OpenStored proved.
func decodeValue(encoded []byte, dst any) error {
	err := jsonpack.Unmarshal(encoded, dst)
	if err == nil {
		return nil
	}
	if errors.Is(err, jsonpack.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, ok := errors.AsType[*json.InvalidUnmarshalError](err); ok {
		return err // dst is none
	}
	return fmt.Errorf("%w: %w", ErrMismatch, err)
}

// decodeAnew decodes as decodeValue does, and replaces what an earlier attempt may have left in dst.
func decodeAnew(encoded []byte, dst any) error {
	fresh := reflect.New(reflect.TypeOf(dst).Elem())
	err := decodeValue(encoded, fresh.Interface())
	if err == nil {
		reflect.ValueOf(dst).Elem().Set(fresh.Elem())
	}
	return err
}

// isPrefilled reports whether dst points at contents of the caller's own, into which a value is to be decoded.
func isPrefilled(dst any) bool {
	v := reflect.ValueOf(dst)
	return v.Kind() == reflect.Pointer && !v.IsNil() && !v.Elem().IsZero()
}

// decodeInto decodes as decodeValue does. Where dst is prefilled it is left alone if the value does not fit; else an
// earlier attempt may have spoiled it, and then its contents are replaced. spoils says that this attempt may have done
// so.
func decodeInto(encoded []byte, dst any, prefilled, spoiled bool) (spoils bool, err error) {
	switch {
	case prefilled:
		// The proof costs a second decoding, but only what has contents can lose them.
		if err = decodeValue(encoded, blank(dst)); err == nil || !errors.Is(err, ErrMismatch) {
			err = decodeValue(encoded, dst)
		}
		return false, err
	case spoiled:
		err = decodeAnew(encoded, dst)
	default:
		err = decodeValue(encoded, dst)
	}
	return errors.Is(err, ErrMismatch), err
}

// blank returns a pointer to a zero value of the type that a value for dst is decoded into: json follows pointers, also
// those in an interface.
func blank(dst any) any {
	v := reflect.ValueOf(dst)
	for !v.IsNil() {
		next := v.Elem()
		if next.Kind() == reflect.Interface && !next.IsNil() {
			next = next.Elem()
		}
		if next.Kind() != reflect.Pointer || next.IsNil() || next.Type() == v.Type() {
			break
		}
		v = next
	}
	return reflect.New(v.Type().Elem()).Interface()
}

// target is where GetOrLoad is to put a value. A value that does not fit leaves its contents as they were.
type target struct {
	dst                any
	prefilled, spoiled bool
}

func (t *target) take(value []byte) (err error) {
	t.spoiled, err = decodeInto(value, t.dst, t.prefilled, t.spoiled)
	return err
}

// appendJSON appends what appendValue made or format.OpenStored proved to dst as JSON.
func appendJSON(dst, encoded []byte) ([]byte, error) {
	dst, err := jsonpack.AppendJSON(dst, encoded)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return dst, err
}
