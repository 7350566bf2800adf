//go:build !unix || aix

package disk

// openFlags are what these systems have for the opening of files that may be no files.
const openFlags = 0

func isLink(error) bool { return false }
