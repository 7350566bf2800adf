package main

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keepcache/keepcache/internal/jsontext"
)

// object builds a JSON object. Members are written in the order of the calls, which must be the order of their names.
type object struct{ buf []byte }

func (o *object) member(name string) {
	if len(o.buf) == 0 {
		o.buf = append(o.buf, '{')
	} else {
		o.buf = append(o.buf, ',')
	}
	o.buf = append(jsontext.AppendString(o.buf, name), ':')
}

func (o *object) raw(name string, text []byte) {
	o.member(name)
	o.buf = append(o.buf, text...)
}

func (o *object) text(name, s string) {
	o.member(name)
	o.buf = jsontext.AppendString(o.buf, strings.ToValidUTF8(s, "\ufffd"))
}

// name writes the name of a key or bucket exactly. A name that is not UTF-8 is written as base64 in another member.
func (o *object) name(member, name string) {
	if !utf8.ValidString(name) {
		member, name = member+"_base64", base64.StdEncoding.EncodeToString([]byte(name))
	}
	o.text(member, name)
}

func (o *object) int(name string, n int64) {
	o.member(name)
	o.buf = strconv.AppendInt(o.buf, n, 10)
}

func (o *object) bool(name string, b bool) {
	o.member(name)
	o.buf = strconv.AppendBool(o.buf, b)
}

func (o *object) null(name string) { o.raw(name, []byte("null")) }

// bytes returns the object and ends it.
func (o *object) bytes() []byte {
	if len(o.buf) == 0 {
		o.buf = append(o.buf, '{')
	}
	return append(o.buf, '}')
}

// line returns the object as a line.
func (o *object) line() []byte { return append(o.bytes(), '\n') }
