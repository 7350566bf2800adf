// Package beside names the files that stand beside a cache. Everybody who adds a suffix to a cache's name asks here, so that
// a reader in another process finds what the owner has made.
package beside

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"unicode/utf8"
)

// Path returns path with suffix behind it where the file system takes a name of that length. Elsewhere the name is cut
// short, see Prefix.
func Path(path, suffix string) string { return Prefix(path, suffix, 0) }

// Prefix returns with what the names of a family of files begin: path, with suffix behind it, to which the caller appends
// room bytes more, a time say.
//
// Where the file system does not take so long a name, the name of path is cut at a letter so that it does, and "~" and 24
// hexadecimal digits follow it, of the SHA-256 sum of the whole name. So two caches do not share a name, and everybody comes to
// the same one.
func Prefix(path, suffix string, room int) string {
	dir, name := filepath.Split(path)
	need := len(name) + len(suffix) + room
	if need <= surely {
		return path + suffix
	}
	most := longest(dir)
	if need <= most {
		return path + suffix
	}
	sum := sha256.Sum256([]byte(name))
	mark := "~" + hex.EncodeToString(sum[:sumBytes])
	keep := max(most-len(mark)-len(suffix)-room, 0)
	for keep > 0 && keep < len(name) && !utf8.RuneStart(name[keep]) {
		keep--
	}
	return dir + name[:min(keep, len(name))] + mark + suffix
}

const (
	// surely is how long a name may be on every file system that is in use: the shortest limit, of an encrypted one, is
	// 143 bytes.
	surely = 140

	// usual is the limit of nearly all of them, in bytes.
	usual = 255

	sumBytes = 12
)
