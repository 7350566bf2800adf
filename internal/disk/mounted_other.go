//go:build !linux

package disk

// Mounted reports whether the file at path is known to be a mount of its own: nothing can be renamed over it.
func Mounted(string) bool { return false }
