// Package glob matches keys with patterns.
package glob

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Glob is a pattern for whole keys: * is any text, slashes included, ? is one character, [a-z] and [^a-z] are one
// of a set, and \ takes the next character as it is.
type Glob struct {
	Prefix string // with which every match begins

	parts []globPart
}

// globPart matches one character, or any text.
type globPart struct {
	any     bool
	one     rune
	set     []rune // pairs of first and last
	outside bool   // of the set
	every   bool   // ?
}

// Parse reads a pattern.
func Parse(pattern string) (*Glob, error) {
	g := &Glob{}
	plain := true
	for rest := pattern; rest != ""; {
		c, n := utf8.DecodeRuneInString(rest)
		if c == utf8.RuneError && n == 1 {
			return nil, errors.New("it is not UTF-8")
		}
		rest = rest[n:]
		p := globPart{one: c}
		switch c {
		case '*':
			p = globPart{any: true}
		case '?':
			p = globPart{every: true}
		case '[':
			end := strings.IndexByte(rest, ']')
			if end < 1 {
				return nil, errors.New("a [ has no ]")
			}
			p = globPart{}
			set := []rune(rest[:end])
			rest = rest[end+1:]
			if set[0] == '^' {
				p.outside, set = true, set[1:]
			}
			for i := 0; i < len(set); i++ {
				last := set[i]
				first := last
				if i+2 < len(set) && set[i+1] == '-' {
					last, i = set[i+2], i+2
				}
				if last < first {
					return nil, fmt.Errorf("the range %c-%c has nothing in it", first, last)
				}
				p.set = append(p.set, first, last)
			}
		case '\\':
			c, n = utf8.DecodeRuneInString(rest)
			if n == 0 {
				return nil, errors.New(`it ends in a \`)
			}
			p.one, rest = c, rest[n:]
		}
		if plain = plain && p.one != 0; plain {
			g.Prefix += string(p.one)
		}
		g.parts = append(g.parts, p)
	}
	return g, nil
}

func (p *globPart) matches(c rune) bool {
	switch {
	case p.every:
		return true
	case p.set == nil && !p.outside:
		return c == p.one
	}
	for i := 0; i < len(p.set); i += 2 {
		if p.set[i] <= c && c <= p.set[i+1] {
			return !p.outside
		}
	}
	return p.outside
}

// Match reports whether the whole key matches.
func (g *Glob) Match(key string) bool {
	matches, _, _ := g.MatchUntil(key, func() error { return nil })
	return matches
}

// askEvery is how many steps MatchUntil takes between two calls of its function: some 100 µs.
const askEvery = 1 << 14

// MatchUntil is Match for who is in a hurry: it asks now and then whether to go on, and ends with the error that it
// gets. It returns how many steps it took, as many as the bytes of key and pattern multiplied at worst.
//
// After a mismatch it goes back to the last *, which is enough: an earlier one could only take what the last one can
// take too.
func (g *Glob) MatchUntil(key string, ask func() error) (matches bool, steps int, err error) {
	at, star, from, next := 0, -1, "", askEvery
	for rest := key; ; {
		if steps++; steps >= next {
			next = steps + askEvery
			if err := ask(); err != nil {
				return false, steps, err
			}
		}
		switch {
		case at < len(g.parts) && g.parts[at].any:
			star, from, at = at, rest, at+1
			continue
		case rest == "" && at == len(g.parts):
			return true, steps, nil
		case rest != "" && at < len(g.parts):
			steps += len(g.parts[at].set) / 2 // which is looked through
			if c, n := utf8.DecodeRuneInString(rest); g.parts[at].matches(c) {
				rest, at = rest[n:], at+1
				continue
			}
		}
		if star < 0 || from == "" {
			return false, steps, nil
		}
		_, n := utf8.DecodeRuneInString(from)
		from = from[n:]
		rest, at = from, star+1
	}
}
