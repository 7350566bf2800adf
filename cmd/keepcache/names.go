package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// parseDisplay is the inverse of display.Name.
func parseDisplay(shown string) (string, error) {
	if !strings.HasPrefix(shown, `"`) {
		return shown, nil
	}
	return strconv.Unquote(shown)
}

// printable returns a message with all control characters escaped.
func printable(message string) string {
	var b strings.Builder
	for len(message) > 0 {
		r, size := utf8.DecodeRuneInString(message)
		switch {
		case r == '\n' || r == '\t' || strconv.IsPrint(r) && !(r == utf8.RuneError && size == 1):
			b.WriteString(message[:size])
		default:
			quoted := strconv.Quote(message[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		message = message[size:]
	}
	return b.String()
}

// shellQuote quotes an argument for a POSIX shell.
func shellQuote(arg string) string {
	plain := arg != "" && strings.Trim(arg,
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%") == ""
	if plain {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}
