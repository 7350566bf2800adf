package keepcache

import (
	"errors"
	"fmt"

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
		return fmt.Errorf("%w: %w", ErrUnsupportedValue, err)
	}
	return err
}

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
	if errors.Is(err, jsonpack.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
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
