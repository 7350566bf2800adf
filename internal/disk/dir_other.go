//go:build !unix

package disk

import "io/fs"

// canHold says that directories go by their paths: on Windows one cannot be renamed as long as a file in it is open.
const canHold = false

func unlinked(fs.FileInfo) bool { return false }
