package keepcache

import (
	"errors"
	"fmt"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

// appendValue appends the encoding of v, which may have limit bytes, to dst.
func appendValue(dst []byte, v any, limit int) ([]byte, error) {
	dst, err := jsonpack.Append(dst, v, limit)
	switch {
	case errors.Is(err, jsonpack.ErrTooLarge):
		err = fmt.Errorf("%w: its encoding passes %d bytes", ErrTooLarge, limit)
	case errors.Is(err, jsonpack.ErrUnsupported):
		err = fmt.Errorf("%w: %w", ErrUnsupportedValue, err)
	}
	return dst, err
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
