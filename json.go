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

// checkValue proves that encoded, which comes from outside, is one whole value.
func checkValue(encoded []byte) error {
	if err := jsonpack.Scan(encoded); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// decodeValue decodes into dst, a pointer, what appendValue made or checkValue proved.
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

// appendJSON appends what appendValue made or checkValue proved to dst as JSON.
func appendJSON(dst, encoded []byte) ([]byte, error) {
	if len(encoded) == 0 {
		return dst, fmt.Errorf("%w: the entry has no value", ErrCorrupt)
	}
	dst, err := jsonpack.AppendJSON(dst, encoded)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return dst, err
}
