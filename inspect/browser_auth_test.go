package inspect_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
)

// browser returns what drives chromium, or skips the test.
func browser(t *testing.T, script string, env ...string) *exec.Cmd {
	t.Helper()
	dir := os.Getenv("KEEPCACHE_PLAYWRIGHT")
	if dir == "" {
		t.Skip("KEEPCACHE_PLAYWRIGHT names no directory with playwright-core")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			cmd := exec.CommandContext(t.Context(), "node", script)
			cmd.Env = append(append(os.Environ(), "BROWSER="+path, "MODULES="+dir), env...)
			return cmd
		}
	}
	t.Skip("there is no chromium")
	return nil
}

// served is set in a process of its own that serves a cache with a password, until it is killed.
const served = "KEEPCACHE_SERVED"

// TestServed is that process.
func TestServed(t *testing.T) {
	path, addr, ok := strings.Cut(os.Getenv(served), " ")
	if !ok {
		t.Skip("it is for others to start")
	}
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err)
	for i := range 50 {
		require.NoError(t, db.Bucket("users").Set(fmt.Sprintf("user:%02d", i), map[string]any{"id": i}, time.Hour))
	}
	authorize, err := inspect.BasicAuth("admin", "open sesame")
	require.NoError(t, err)
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	fmt.Printf("serving %s\n", l.Addr())
	mux := http.NewServeMux()
	mux.Handle("/debug/cache/", inspect.Handler(db, &inspect.Options{ShowValues: true, Authorize: authorize}))
	mux.Handle("/refused/", inspect.Handler(db,
		&inspect.Options{Authorize: func(*http.Request) error { return errors.New("not today") }}))
	t.Log(http.Serve(l, mux))
}

// TestBrowser_Password asks for the password in a real browser, takes it, refuses without it in a page that has its
// style, and says across its top that the program is gone, until it is back.
func TestBrowser_Password(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.cache")
	exe, err := os.Executable()
	require.NoError(t, err)
	var program *exec.Cmd
	start := func(addr string) string {
		program = exec.CommandContext(t.Context(), exe, "-test.run", "^TestServed$", "-test.v")
		program.Env = append(os.Environ(), served+"="+path+" "+addr)
		out, err := program.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, program.Start())
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if addr, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
				go func() {
					for lines.Scan() {
					}
				}()
				return addr
			}
		}
		t.Fatal("it does not serve")
		return ""
	}
	kill := func() {
		require.NoError(t, program.Process.Kill())
		_ = program.Wait()
	}
	cmd := browser(t, "testdata/password.mjs")
	addr := start("127.0.0.1:0")
	defer func() { kill() }()
	cmd.Env = append(cmd.Env, "BASE=http://"+addr+"/", fmt.Sprint("PID=", program.Process.Pid))
	// The script says on a line of its own when the program is to be killed and started again, and is told that it was.
	ask, err := cmd.StdoutPipe()
	require.NoError(t, err)
	tell, err := cmd.StdinPipe()
	require.NoError(t, err)
	var said strings.Builder
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	oks := 0
	for lines := bufio.NewScanner(ask); lines.Scan(); {
		switch line := lines.Text(); {
		case line == "kill":
			kill()
			fmt.Fprintln(tell, "killed")
		case line == "start":
			start(addr)
			fmt.Fprintln(tell, program.Process.Pid)
		case strings.HasPrefix(line, "ok "):
			oks++
		}
	}
	require.NoError(t, cmd.Wait(), said.String())
	require.Equal(t, 6, oks)
}
