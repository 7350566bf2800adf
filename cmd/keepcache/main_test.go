package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/wire"
)

// programs are what the test's own program is under other names.
var programs = map[string]func(){
	"keepcache": main,
	"hold":      hold,
	"serve":     serve,
	"imposter":  imposter,
}

func TestMain(m *testing.M) { testscript.Main(m, programs) }

// TestScripts runs the command lines of testdata/script in processes of their own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("KEEPCACHE_FILE", "app.cache")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each of hundreds of processes otherwise
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code":   code,
			"sleep":  sleep,
			"await":  await,
			"damage": damage,
			"swap":   swap,
		},
	})
}

// hold is a program that opens the cache of its first argument, writes as many entries to a bucket as its third one
// says, if there is one, writes the file of its second, and keeps the cache open until it is killed. It leaves its
// entries in the journal.
func hold() {
	options := &keepcache.Options{CommitInterval: time.Hour, CommitBytes: 16 << 20}
	db, err := keepcache.Open(os.Args[1], options)
	if len(os.Args) > 3 && err == nil {
		var n int
		n, err = strconv.Atoi(os.Args[3])
		for i := 0; i < n && err == nil; i++ {
			err = db.Bucket("held").Set(strconv.Itoa(i), "what is held", 0)
		}
	}
	if err == nil {
		err = os.WriteFile(os.Args[2], []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	time.Sleep(time.Minute)
	db.Close()
}

// serve is a program that opens the cache of its first argument, serves it on its socket, writes the file of its
// second, and keeps it open until it is killed. Further arguments are what it allows.
func serve() {
	options := &inspect.Options{}
	busy, loads := false, false
	for _, arg := range os.Args[3:] {
		switch arg {
		case "values":
			options.ShowValues = true
		case "writes":
			options.AllowWrites = true
		case "busy":
			busy = true
		case "loads":
			loads = true
		}
	}
	db, err := keepcache.Open(os.Args[1], nil)
	if err == nil {
		_, err = inspect.Listen(db, options)
	}
	if loads && err == nil {
		err = load(db)
	}
	if err == nil {
		err = os.WriteFile(os.Args[2], []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if busy {
			var n int
			_, _ = db.Get("counter", &n)
			_ = db.Set("counter", n+1, 0)
			_, _ = db.Bucket("pages").Exists("front")
			_, _, _ = db.Bucket("pages").GetBytes("front")
		}
		if loads {
			var n int
			_, _ = db.Bucket("loads").GetOrLoad(context.Background(), time.Now().String(), &n, loadOne, nil)
		}
	}
	db.Close()
}

// load has a value loaded, a load fail, which is then remembered, one pass its time, and one that goes on.
func load(db *keepcache.DB) error {
	var n int
	b, ctx, begun := db.Bucket("loads"), context.Background(), make(chan struct{})
	fail := func(context.Context, *keepcache.Load) (any, error) { return nil, errors.New("the source is down") }
	hang := func(context.Context, *keepcache.Load) (any, error) { select {} }
	_, err := b.GetOrLoad(ctx, "loaded", &n, loadOne, nil)
	for range 2 {
		_, _ = b.GetOrLoad(ctx, "failing", &n, fail, &keepcache.LoadOptions{RetryAfter: time.Hour})
	}
	_, _ = b.GetOrLoad(ctx, "late", &n, hang, &keepcache.LoadOptions{LoadTimeout: time.Millisecond})
	go func() {
		var n int
		_, _ = b.GetOrLoad(ctx, "running", &n, func(ctx context.Context, l *keepcache.Load) (any, error) {
			close(begun)
			return hang(ctx, l)
		}, nil)
	}()
	<-begun
	return err
}

func loadOne(context.Context, *keepcache.Load) (any, error) { return 1, nil }

// imposter serves the socket of its first argument with another version of the protocol, opens the cache of its second
// if there is one, and writes the file of its last.
func imposter() {
	l, err := net.Listen("unix", os.Args[1])
	if err == nil {
		_, err = keepcache.Open(os.Args[2], nil)
	}
	if err == nil {
		err = os.WriteFile(os.Args[3], []byte("1"), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	time.AfterFunc(time.Minute, func() { os.Exit(1) })
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(wire.VersionHeader, "99")
		fmt.Fprintln(w, "{}")
	}))
}

// code N PROGRAM ARGS... runs a program and wants that exit code. That of a locked file is to come within
// a second; the bound is wider because machines that test have other things to do.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program args...")
	}
	begun := time.Now()
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
	if took := time.Since(begun); got == exitLocked && took > 5*time.Second {
		ts.Fatalf("the answer took %s", took)
	}
}

func sleep(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}

// await FILE waits until there is something in a file.
func await(ts *testscript.TestScript, _ bool, args []string) {
	for range 3000 {
		if info, err := os.Stat(ts.MkAbs(args[0])); err == nil && info.Size() > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s does not come", args[0])
}

// damage FILE OFFSET overwrites 64 bytes. An offset that is text is the place of that text.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	if err != nil {
		if at = strings.Index(string(content), args[1]); at < 0 {
			ts.Fatalf("%s is not in %s", args[1], args[0])
		}
	}
	copy(content[at:], strings.Repeat("\xa5", 64))
	ts.Check(os.WriteFile(path, content, 0o600))
}

// swap FILE OLD NEW replaces text in a file; both are read as Go reads quoted text.
func swap(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(filepath.FromSlash(args[0]))
	content, err := os.ReadFile(path)
	ts.Check(err)
	from, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	to, err := strconv.Unquote(`"` + args[2] + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(path, []byte(strings.ReplaceAll(string(content), from, to)), 0o600))
}
