package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

// alone are the commands that ask no server. Any other one, one that is new too, is sent to the hostile servers below.
var alone = map[string]bool{
	"help": true, "demo": true, "version": true, "completion": true, "repair": true, "restore": true,
	checkEntriesName: true, checkPagesName: true, demoWriterName: true,
}

// lasting are the commands that last for as long as a server works or sends, and end when they are interrupted. Lists
// do so only with servers that send without end, and fast: a page of them has 1 GiB at most.
var lasting = map[string]bool{
	"watch": true, "backup": true, "clear": true, "sweep": true, "compact": true, "verify": true,
	"keys, endless": true, "export, endless": true, "keys, endless pages": true, "keys, pages of nothing": true,
	"export, endless pages": true, "export, pages of nothing": true,
}

// words are what the arguments in the use line of a command are.
var words = map[string]string{"VALUE": "1", "LIFETIME": "1h"}

// argsOf makes arguments from the use line of a command.
func argsOf(cmd *cobra.Command) []string {
	var args []string
	for _, word := range strings.Fields(cmd.Use) {
		switch {
		case strings.HasPrefix(word, "["):
		case strings.HasPrefix(word, "-") || word == cmd.Name():
			args = append(args, word)
		case words[word] != "":
			args = append(args, words[word])
		default:
			args = append(args, "1")
		}
	}
	return args
}

// evil is text that a terminal, a log or a browser would obey.
const evil = "a\x1b[2J\x1b]0;owned\x07\u009b31m\u202e\r\nkeepcache: all is well\x00\u2028</script>"

// filled sets every field of a value: numbers to n, text to what is evil, and lists to two of each.
func filled(v reflect.Value, n int64, depth int) {
	switch v.Interface().(type) {
	case json.RawMessage:
		v.Set(reflect.ValueOf(json.RawMessage(`{"` + jsonText(evil) + `":["` + jsonText(evil) + `",1.0,12]}`)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				filled(v.Field(i), n, depth)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			filled(v.Index(i), n, depth)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			filled(v.Index(i), n, depth)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		filled(e, n, depth)
		k := reflect.New(v.Type().Key()).Elem()
		filled(k, n, depth)
		v.SetMapIndex(k, e)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem(), n, depth)
	case reflect.String:
		v.SetString(evil)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Float64:
		v.SetFloat(float64(n))
	case reflect.Int, reflect.Int64:
		v.SetInt(n)
	default:
		panic("what is a " + v.Type().String())
	}
}

func jsonText(s string) string {
	text, _ := json.Marshal(s)
	return string(text[1 : len(text)-1])
}

// answers are what endpoints answer with.
var answers = map[string]any{
	"stats": wire.Stats{}, "buckets": wire.Buckets{}, "keys": wire.Keys{}, "biggest": wire.Keys{},
	"expiring": wire.Keys{}, "entry": wire.Entry{},
	"exists": wire.Found{}, "add": wire.Found{}, "delete": wire.Found{}, "touch": wire.Found{}, "clear": wire.Removed{},
	"sweep":   wire.Removed{},
	"compact": wire.Compacted{}, "verify": wire.Report{}, "events": wire.Event{},
}

// hostileAnswer is an answer of a type that fits, whose contents are hostile.
func hostileAnswer(name string, n int64) []byte {
	typ := reflect.TypeOf(answers[name])
	if typ == nil {
		typ = reflect.TypeFor[map[string]string]()
	}
	v := reflect.New(typ).Elem()
	filled(v, n, 0)
	text, err := json.Marshal(v.Interface())
	if err != nil {
		panic(err)
	}
	return text
}

// twisted changes the type of everything in a JSON value.
func twisted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = twisted(e)
		}
		return v
	case []any:
		return map[string]any{"0": 1}
	case string:
		return []any{1, v}
	case bool:
		return "true"
	}
	return "text"
}

// TestHostileServer_EachCommand sends each command to servers that answer what no honest one would. It ends by itself,
// or, if it lasts for as long as the server works, when it is interrupted; what it prints can be shown; and it never
// panics.
func TestHostileServer_EachCommand(t *testing.T) {
	defer func(before time.Duration) { answerWait = before }(answerWait)
	answerWait = 500 * time.Millisecond
	asked := make(map[string]*atomic.Int64)
	var wait sync.WaitGroup
	busy := make(chan struct{}, 64)
	for _, cmd := range newRootCommand().Commands() {
		if alone[cmd.Name()] {
			continue
		}
		n := new(atomic.Int64)
		asked[cmd.Name()] = n
		for kind, serve := range hostileServers {
			wait.Go(func() {
				busy <- struct{}{}
				defer func() { <-busy }()
				if wrong := hostileRun(t.Context(), cmd, n, kind, serve); wrong != "" {
					t.Errorf("%s, %s: %s", cmd.Name(), kind, wrong)
				}
			})
		}
	}
	wait.Wait()
	require.GreaterOrEqual(t, len(asked), 18)
	for name, n := range asked {
		require.Positive(t, n.Load(), "%s asks no server: it belongs to alone, or its arguments are not those that it takes",
			name)
	}
}

// hostileRun runs a command against a server and says what is wrong.
func hostileRun(ctx context.Context, cmd *cobra.Command, asked *atomic.Int64, kind string,
	serve func(http.ResponseWriter, *http.Request, string)) (wrong string) {
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1"), "/")
		if name != "" {
			asked.Add(1)
		}
		w.Header().Set(wire.VersionHeader, "1")
		w.Header().Set("Content-Type", wire.TypeJSON)
		switch name {
		case "events":
			w.Header().Set("Content-Type", wire.TypeLines)
		case "backup":
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Trailer", wire.ResultTrailer)
			defer w.Header().Set(wire.ResultTrailer, "ok")
		}
		serve(w, r.WithContext(context.WithValue(r.Context(), endedKey{}, ended)), name)
	}))
	defer s.Close()
	defer s.CloseClientConnections()
	defer close(ended)
	if lasting[cmd.Name()] || lasting[cmd.Name()+", "+kind] {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	root := newRootCommand()
	args := append(argsOf(cmd), "--addr", s.URL)
	if unbucketed[cmd.Name()] == "" {
		args = append(args, "--bucket", "default")
	}
	root.SetArgs(args)
	root.SetIn(strings.NewReader(`{"key":"k","value":1}` + "\n"))
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	done := make(chan string)
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		ran, err := root.ExecuteContextC(ctx)
		complain(ran, &errs, err)
	}()
	select {
	case wrong = <-done:
	case <-time.After(30 * time.Second):
		return "it does not end"
	}
	if cmd.Name() == "backup" {
		out.Reset() // a copy, byte by byte
	}
	text := out.String() + errs.String()
	switch {
	case wrong != "":
	case len(text) > 64<<20:
		return fmt.Sprintf("it prints %d bytes", len(text))
	case !utf8.ValidString(text) ||
		strings.ContainsFunc(text, func(c rune) bool { return jsontext.Obeyed(c) && c != '\n' && c != '\t' }):
		return fmt.Sprintf("it prints %.1000q", text)
	case strings.Contains(text, "\nkeepcache: all is well"):
		return fmt.Sprintf("it prints a forged line: %.1000q", text)
	}
	return wrong
}

type endedKey struct{}

// hang answers nothing more until the client has gone, or the test is over.
func hang(w http.ResponseWriter, r *http.Request) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	select {
	case <-r.Context().Done():
	case <-r.Context().Value(endedKey{}).(chan struct{}):
	}
}

// greeted answers who the server is, and leaves the rest to fn.
func greeted(fn func(http.ResponseWriter, *http.Request, string)) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, r *http.Request, name string) {
		if name == "" {
			_ = json.NewEncoder(w).Encode(wire.Hello{Version: 1, Path: evil, PID: 1, Program: evil, Values: true, Writes: true,
				Page: math.MaxInt})
			return
		}
		fn(w, r, name)
	}
}

func numbers(n int64) func(http.ResponseWriter, *http.Request, string) {
	return greeted(func(w http.ResponseWriter, _ *http.Request, name string) { _, _ = w.Write(hostileAnswer(name, n)) })
}

var hostileServers = map[string]func(w http.ResponseWriter, r *http.Request, name string){
	"escapes":         numbers(5),
	"huge numbers":    numbers(math.MaxInt64),
	"least numbers":   numbers(math.MinInt64),
	"negative":        numbers(-1),
	"silent at first": func(w http.ResponseWriter, r *http.Request, _ string) { hang(w, r) },
	"silent":          greeted(func(w http.ResponseWriter, r *http.Request, _ string) { hang(w, r) }),
	"broken off": greeted(func(w http.ResponseWriter, r *http.Request, name string) {
		_, _ = w.Write(hostileAnswer(name, 5)[:9])
		panic(http.ErrAbortHandler)
	}),
	"other types": greeted(func(w http.ResponseWriter, _ *http.Request, name string) {
		var v any
		_ = json.Unmarshal(hostileAnswer(name, 5), &v)
		_ = json.NewEncoder(w).Encode(twisted(v))
	}),
	"no JSON": greeted(func(w http.ResponseWriter, _ *http.Request, _ string) { fmt.Fprint(w, evil) }),
	"null":    greeted(func(w http.ResponseWriter, _ *http.Request, _ string) { fmt.Fprint(w, "null") }),
	"deep": greeted(func(w http.ResponseWriter, _ *http.Request, _ string) {
		fmt.Fprint(w, strings.Repeat(`{"value":[`, 200_000))
	}),
	"refuses": greeted(func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.WriteHeader(500)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": wire.Failure{Code: evil, Message: evil, Op: evil, Path: evil,
			Bucket: evil, Key: evil, Hint: evil}})
	}),
	"another version": func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set(wire.VersionHeader, "\x1b[2J")
		fmt.Fprint(w, evil)
	},
	"elsewhere": func(w http.ResponseWriter, r *http.Request, _ string) {
		http.Redirect(w, r, "http://localhost:1/", http.StatusTemporaryRedirect)
	},
	"endless": greeted(func(w http.ResponseWriter, r *http.Request, name string) {
		begin, next := `{"error":"`, strings.Repeat("\x1b", 64<<10)
		switch name {
		case "keys", "biggest":
			begin, next = `{"entries":[{}`, strings.Repeat(`,{"key":"k","value":1}`, 3000)
		case "events":
			begin, next = "", strings.Repeat(string(hostileAnswer(name, 5))+"\n", 20)
		case "buckets":
			begin, next = `{"buckets":[{}`, strings.Repeat(`,{"name":"default"}`, 3000)
		}
		for text := begin; ; text = next {
			if _, err := fmt.Fprint(w, text); err != nil {
				return
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-r.Context().Done():
				return
			case <-r.Context().Value(endedKey{}).(chan struct{}):
				return
			}
		}
	}),
	"endless pages": greeted(func(w http.ResponseWriter, r *http.Request, name string) {
		if name != "keys" {
			_, _ = w.Write(hostileAnswer(name, 5))
			return
		}
		next := wire.Name("b" + r.URL.Query().Get("after"))
		_ = json.NewEncoder(w).Encode(wire.Keys{Damaged: 1 << 10, Next: &next})
	}),
	"pages of nothing": greeted(func(w http.ResponseWriter, r *http.Request, name string) {
		if name != "keys" {
			_, _ = w.Write(hostileAnswer(name, 5))
			return
		}
		next := wire.Name(r.URL.Query().Get("after") + "b")
		_ = json.NewEncoder(w).Encode(wire.Keys{Next: &next})
	}),
}
