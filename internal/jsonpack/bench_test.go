package jsonpack_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/keepcache/keepcache/internal/jsonpack"
)

// user is a struct of plain fields, about 200 bytes of msgpack.
type user struct {
	ID      int64    `json:"id" msgpack:"id"`
	Name    string   `json:"name" msgpack:"name"`
	Email   string   `json:"email" msgpack:"email"`
	Age     int      `json:"age" msgpack:"age"`
	Active  bool     `json:"active" msgpack:"active"`
	Score   float64  `json:"score" msgpack:"score"`
	Tags    []string `json:"tags" msgpack:"tags"`
	City    string   `json:"city" msgpack:"city"`
	Country string   `json:"country" msgpack:"country"`
	Visits  uint32   `json:"visits" msgpack:"visits"`
}

var someUser = user{
	ID: 1234567890123, Name: "Ada Lovelace", Email: "ada.lovelace@example.com", Age: 36, Active: true, Score: 98.625,
	Tags: []string{"admin", "mathematician", "poet"}, City: "London", Country: "United Kingdom", Visits: 70000,
}

var someMap = map[string]any{
	"id": int64(1234567890123), "name": "Ada Lovelace", "email": "ada.lovelace@example.com", "age": 36, "active": true,
	"score": 98.625,
	"tags":  []any{"admin", "mathematician", "poet"}, "city": "London", "country": "United Kingdom", "visits": 70000,
}

type event struct {
	At   time.Time `json:"at"`
	User *user     `json:"user"`
	Meta map[string]string
}

var benchValues = []struct {
	name string
	v    any
	dst  func() any
}{
	{"struct", &someUser, func() any { return new(user) }},
	{"map", someMap, func() any { return new(map[string]any) }},
	{"any", someMap, func() any { return new(any) }},
	{"string", strings.Repeat("hello, world ", 8), func() any { return new(string) }},
	{"bytes", bytes.Repeat([]byte("hello, world "), 8), func() any { return new([]byte) }},
	{"int", 123456, func() any { return new(int) }},
	{"ints", []int{1, 200, 3000, 40000, 500000, 6000000, 70000000, 800000000}, func() any { return new([]int) }},
	{"strings", []string{"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}, func() any { return new([]string) }},
	{"structs", []user{someUser, someUser, someUser, someUser, someUser}, func() any { return new([]user) }},
	{"event", &event{time.Unix(1700000000, 5).UTC(), &someUser, map[string]string{"ip": "10.0.0.1", "agent": "curl"}},
		func() any { return new(event) }},
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range benchValues {
		b.Run(c.name+"/jsonpack", func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf, _ = jsonpack.Append(buf[:0], c.v, 0)
			}
		})
		b.Run(c.name+"/json", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = json.Marshal(c.v)
			}
		})
		b.Run(c.name+"/msgpack", func(b *testing.B) {
			b.ReportAllocs()
			var buf bytes.Buffer
			enc := msgpack.NewEncoder(&buf)
			for b.Loop() {
				buf.Reset()
				_ = enc.Encode(c.v)
			}
		})
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	for _, c := range benchValues {
		data, err := jsonpack.Append(nil, c.v, 0)
		if err != nil {
			b.Fatal(err)
		}
		text, _ := json.Marshal(c.v)
		b.Run(c.name+"/jsonpack", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := jsonpack.Unmarshal(data, c.dst()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/json", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = json.Unmarshal(text, c.dst())
			}
		})
		b.Run(c.name+"/msgpack", func(b *testing.B) {
			b.ReportAllocs()
			r := bytes.NewReader(nil)
			dec := msgpack.NewDecoder(r)
			for b.Loop() {
				r.Reset(data)
				dec.Reset(r)
				// The low-level calls where there are some, reflection elsewhere.
				switch p := c.dst().(type) {
				case *any:
					*p, err = dec.DecodeInterface()
				case *map[string]any:
					*p, err = dec.DecodeMap()
				case *string:
					*p, err = dec.DecodeString()
				case *[]byte:
					*p, err = dec.DecodeBytes()
				case *int:
					*p, err = dec.DecodeInt()
				default:
					err = dec.Decode(p)
				}
				if c.name == "event" {
					continue // its time is text
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchData(b *testing.B) []byte {
	v := make([]any, 500)
	for i := range v {
		v[i] = someMap
	}
	data, err := jsonpack.Append(nil, v, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	return data
}

func BenchmarkScan(b *testing.B) {
	data := benchData(b)
	for b.Loop() {
		_ = jsonpack.Scan(data)
	}
}

func BenchmarkScanOne(b *testing.B) {
	data, _ := jsonpack.Append(nil, someMap, 0)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_ = jsonpack.Scan(data)
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	data := benchData(b)
	var buf []byte
	for b.Loop() {
		buf, _ = jsonpack.AppendJSON(buf[:0], data)
	}
}

func BenchmarkAppendFromJSON(b *testing.B) {
	data := benchData(b)
	text, _ := jsonpack.AppendJSON(nil, data)
	for b.Loop() {
		data, _ = jsonpack.AppendFromJSON(data[:0], text, 0)
	}
}
