package wire_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/wire"
)

// peerVariable is set in a process that serves a socket as another user.
const peerVariable = "KEEPCACHE_PEER"

// TestPeer_Served is that process: it prints a line for each request.
func TestPeer_Served(t *testing.T) {
	uid, socket, ok := strings.Cut(os.Getenv(peerVariable), " ")
	if !ok {
		t.Skip("it is for others to start")
	}
	id, err := strconv.Atoi(uid)
	require.NoError(t, err)
	require.NoError(t, syscall.Setgroups(nil))
	require.NoError(t, syscall.Setgid(id))
	require.NoError(t, syscall.Setuid(id))
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(socket, 0o666))
	fmt.Println("serving")
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Printf("got %s %s\n", r.URL.Path, body)
		w.Header().Set(wire.VersionHeader, "1")
		w.Header().Set("Content-Type", wire.TypeJSON)
		fmt.Fprint(w, "{}")
	}))
}

// TestPeer speaks to this user, root, and the owner of the cache's file, and sends nothing to anybody else, whoever's
// the socket seems to be.
func TestPeer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it takes root to become others")
	}
	const someone, nobody = 65533, 65534
	exe, err := os.Executable()
	require.NoError(t, err)
	top, err := os.MkdirTemp("", "peer")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	require.NoError(t, os.Chmod(top, 0o755))
	for i, c := range []struct {
		what           string
		dir            os.FileMode
		dirOf, fileOf  int // the file is absent if negative
		server         int
		socketOf       int // as the server made it, if negative
		link, accepted bool
	}{
		{what: "root", dir: 0o755, fileOf: 0, server: 0, socketOf: -1, accepted: true},
		{what: "another in a sticky directory", dir: 0o777 | os.ModeSticky, fileOf: 0, server: someone, socketOf: -1},
		{what: "another where all may write", dir: 0o777, fileOf: 0, server: someone, socketOf: -1},
		{what: "another with a socket of ours", dir: 0o777, fileOf: 0, server: someone, socketOf: 0},
		{what: "another without a file", dir: 0o777, fileOf: -1, server: someone, socketOf: -1},
		{what: "the owner of a trap", dir: 0o777 | os.ModeSticky, fileOf: someone, server: someone, socketOf: -1},
		{what: "the owner of the file", dir: 0o755, dirOf: someone, fileOf: someone, server: someone, socketOf: -1,
			accepted: true},
		{what: "not the owner of the file", dir: 0o777, dirOf: nobody, fileOf: nobody, server: someone, socketOf: -1},
		{what: "a link", dir: 0o755, fileOf: 0, server: 0, socketOf: -1, link: true},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := filepath.Join(top, fmt.Sprint(i))
			require.NoError(t, os.Mkdir(dir, 0o700))
			require.NoError(t, os.Chown(dir, c.dirOf, -1))
			require.NoError(t, os.Chmod(dir, c.dir))
			path := filepath.Join(dir, "app.cache")
			if c.fileOf >= 0 {
				require.NoError(t, os.WriteFile(path, nil, 0o600))
				require.NoError(t, os.Chown(path, c.fileOf, -1))
			}
			server := exec.Command(exe, "-test.run", "^TestPeer_Served$")
			server.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s.sock", peerVariable, c.server, path))
			out, err := server.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, server.Start())
			t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
			lines := bufio.NewReader(out)
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "serving\n", line)
			if c.socketOf >= 0 {
				require.NoError(t, os.Chown(path+".sock", c.socketOf, -1))
			}
			if c.link {
				require.NoError(t, os.Rename(path+".sock", path+".real"))
				require.NoError(t, os.Symlink(path+".real", path+".sock"))
			}
			client, err := wire.New("unix:" + path + ".sock")
			require.NoError(t, err)
			defer client.Close()
			err = client.Set(t.Context(), wire.Write{Key: "k", Value: []byte(`"secret"`)})
			if c.accepted {
				require.NoError(t, err)
				line, err = lines.ReadString('\n')
				require.NoError(t, err)
				require.Contains(t, line, "secret")
				return
			}
			require.Error(t, err)
			if !c.link {
				require.ErrorIs(t, err, wire.ErrForbidden)
				require.ErrorContains(t, err, fmt.Sprint("user id ", c.server))
			}
			require.NoError(t, server.Process.Kill())
			rest, err := io.ReadAll(lines)
			require.NoError(t, err)
			require.NotContains(t, string(rest), "got", "nothing was sent")
		})
	}
}
