//go:build !linux

package journal

import "errors"

func (f osFile) Intact(size int64) error {
	st, err := f.Stat()
	if err == nil && st.Size() < size {
		err = errCut
	}
	return err
}

func (osFile) Map(int64, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func (osFile) LetGo([]byte) {}

func (osFile) Unmap([]byte) error { return nil }
