// Package beside names the files that stand beside a cache. Everybody who adds a suffix to a cache's name asks here, so
// that a reader in another process finds what the owner has made.
package beside

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"sync"
	"unicode/utf8"
)

// Path returns path with suffix behind it where the file system takes a name of that length. Elsewhere the name is cut
// short, see Prefix.
func Path(path, suffix string) string { return Prefix(path, suffix, 0) }

// Prefix returns with what the names of a family of files begin: path, with suffix behind it, to which the caller
// appends room bytes more, a time say.
//
// Where the file system does not take so long a name, the name of path is cut at a letter so that it does, and "~" and
// 24 hexadecimal digits follow it, of the SHA-256 sum of the whole name. So two caches do not share a name, and
// everybody comes to the same one.
func Prefix(path, suffix string, room int) string {
	dir, name := filepath.Split(path)
	need := len(name) + len(suffix) + room
	if need <= surely {
		return path + suffix
	}
	most := longestIn(dir)
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

// limits has the longest name by directory. It has room for limitsMost; caches with such names in more directories are
// asked about each time.
var limits struct {
	sync.Mutex
	known map[string]int
}

const limitsMost = 1000

// ask returns how many bytes the name of a file in dir may have.
var ask = longest

// Remember notes how long names may be in the directory of path, which is to be opened. From then on this process names
// the files beside it by that, whatever the directory's path leads to: where it is renamed, nobody could say any more.
func Remember(path string) {
	dir, name := filepath.Split(path)
	if len(name)+suffixMost <= surely {
		return // nobody will ask
	}
	limits.Lock()
	defer limits.Unlock()
	if _, again := limits.known[dir]; !again && len(limits.known) >= limitsMost {
		return
	}
	if limits.known == nil {
		limits.known = make(map[string]int)
	}
	limits.known[dir] = ask(dir)
}

func longestIn(dir string) int {
	limits.Lock()
	defer limits.Unlock()
	if most, ok := limits.known[dir]; ok {
		return most
	}
	return ask(dir)
}

const (
	// suffixMost is longer than any suffix, with what is appended to it.
	suffixMost = 64

	// surely is how long a name may be on every file system that is in use: the shortest limit, of an encrypted one, is
	// 143 bytes.
	surely = 140

	// usual is the limit of nearly all of them, in bytes.
	usual = 255

	sumBytes = 12
)

// Journal returns where the journal of the file at path is.
func Journal(path string) string { return Path(path, "-journal") }
