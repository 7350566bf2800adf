package inspect

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// route returns the part of a request's path that follows the mount point of the handler. ok is false if the path is
// not in its one valid spelling. So a proxy's rule for a path cannot be bypassed by another spelling.
//
// With http.StripPrefix that part is the whole path. Without it, the pattern of http.ServeMux tells the mount point. If
// there is no pattern, the mount point is the root.
func route(r *http.Request) (rest string, ok bool) {
	rest = strings.TrimPrefix(r.URL.Path, "/")
	if dir, ok := mount(r.Pattern); ok && !stripped(r, dir) {
		if n := heads(r.URL.Path, dir); n >= 0 {
			rest = r.URL.Path[n:]
		}
	}
	return rest, strings.HasSuffix(r.URL.EscapedPath(), rest) // false for another spelling: v1%2fkeys
}

// mount returns the segments of the path below which a pattern matches everything. ok is false if there is no such
// path.
func mount(pattern string) (dir []string, ok bool) {
	_, path, found := strings.Cut(pattern, "/") // method and host come before it
	if !found {
		return nil, false
	}
	switch at := strings.LastIndexByte(path, '/') + 1; {
	case at == len(path):
	case path[at:] == "*" || strings.HasPrefix(path[at:], "{") && strings.HasSuffix(path, "...}"):
		path = path[:at]
	default:
		return nil, false // a pattern of a single path
	}
	if path == "" {
		return nil, true
	}
	return strings.Split(strings.TrimSuffix(path, "/"), "/"), true
}

// heads returns the length of the segments at the beginning of a path, or -1 if the path does not begin with them.
func heads(path string, dir []string) int {
	n := 1
	if !strings.HasPrefix(path, "/") {
		return -1
	}
	for _, want := range dir {
		segment, _, found := strings.Cut(path[n:], "/")
		if !found || segment != want && !(strings.HasPrefix(want, "{") && segment != "") {
			return -1
		}
		n += len(segment) + 1
	}
	return n
}

// stripped reports whether the segments were removed from the path of a request, as http.StripPrefix does.
func stripped(r *http.Request, dir []string) bool {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return false
	}
	gone, ok := strings.CutSuffix(u.Path, r.URL.Path)
	if !ok || gone == "" {
		return false
	}
	segments := strings.Split(strings.Trim(gone, "/"), "/")
	n := len(segments) - len(dir)
	return n >= 0 && heads("/"+strings.Join(segments[n:], "/")+"/", dir) >= 0
}

// version splits the version of the protocol off a result of route: v1/keys is version 1 and keys.
func version(rest string) (number int, name string, ok bool) {
	part, name, found := strings.Cut(rest, "/")
	digits, isVersion := strings.CutPrefix(part, "v")
	number, err := strconv.Atoi(digits)
	if !found || !isVersion || err != nil || number <= 0 || strconv.Itoa(number) != digits {
		return 0, rest, false
	}
	return number, name, true
}
