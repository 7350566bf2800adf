//go:build !linux

package trust

import "os"

func look(f *os.File) (uid uint32, known, regular bool, err error) { return lookAtAll(f) }
