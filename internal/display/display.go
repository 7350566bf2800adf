// Package display shows the names of keys, buckets and tags. They may be any bytes, and a terminal obeys some of them.
package display

import (
	"strconv"
	"unicode/utf8"
)

// Name returns a name as it can be shown: as it is where it is plain printable text, else quoted as Go quotes it. Two names
// are never shown alike.
func Name(name string) string {
	if name == "" || name[0] == '"' || name[0] == ' ' || name[len(name)-1] == ' ' || !utf8.ValidString(name) {
		return strconv.Quote(name)
	}
	for _, r := range name {
		if !strconv.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	return name
}
