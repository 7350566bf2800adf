//go:build !boltpatched

package boltpatch

// Patched says whether this binary has the patched bbolt.
const Patched = false
