//go:build unix

package journal_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

const childEnv = "KEEPCACHE_JOURNAL_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		appendForEver(path, modes[os.Getenv("KEEPCACHE_JOURNAL_MODE")])
	}
	os.Exit(m.Run())
}

func childRecord(seq uint64) []byte { return content(seq, int(seq*7919)%5000) }

// appendForEver is the child. It tells on its standard output, 16 bytes at a time, which sequence it appended last and
// up to which the imagined store has everything.
func appendForEver(path string, o journal.Options) {
	o.Identity, o.SegmentBytes, o.MaxBytes = identity, 64<<10, 2<<20
	j, err := journal.New(path, o)
	if err != nil {
		panic(err)
	}
	var b [16]byte
	tell := func(last, released uint64) {
		binary.LittleEndian.PutUint64(b[:], last)
		binary.LittleEndian.PutUint64(b[8:], released)
		if _, err := os.Stdout.Write(b[:]); err != nil {
			os.Exit(1)
		}
	}
	released := uint64(0)
	for seq := uint64(1); ; seq++ {
		if err := j.Append(seq, seq, childRecord(seq)); err != nil {
			panic(err)
		}
		if seq%97 == 0 && seq > 200 {
			released = seq - 100
			tell(seq, released)
			j.Release(released)
		}
		if seq%50 == 0 {
			if err := j.Flush(seq); err != nil {
				panic(err)
			}
		}
		tell(seq, released)
	}
}

// Whatever was appended is there after the process was killed.
func TestKill(t *testing.T) {
	n := 6
	if testing.Short() {
		n = 1
	}
	for round := range rounds(n) {
		path := tempPath(t)
		cmd := exec.Command(os.Args[0])
		mode := slices.Sorted(maps.Keys(modes))[round%len(modes)]
		cmd.Env = append(os.Environ(), childEnv+"="+path, "KEEPCACHE_JOURNAL_MODE="+mode)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		time.AfterFunc(time.Duration(20+rand.IntN(200))*time.Millisecond, func() { cmd.Process.Kill() })
		told, err := io.ReadAll(out)
		require.NoError(t, err)
		cmd.Wait()

		told = told[:len(told)/16*16]
		var last, released uint64
		if n := len(told); n > 0 {
			last, released = binary.LittleEndian.Uint64(told[n-16:]), binary.LittleEndian.Uint64(told[n-8:])
		}
		next := released + 1
		r, err := journal.Replay(path, identity, released, func(first, _ uint64, data []byte) error {
			require.Equal(t, next, first)
			require.True(t, bytes.Equal(childRecord(first), data))
			next++
			return nil
		})
		require.NoError(t, err)
		require.False(t, r.Damaged() || r.Gap, "%+v", r)
		require.GreaterOrEqual(t, next, last+1)
		t.Logf("%s: killed after %d log records, %d in the store, %d replayed, torn %v", mode, last, released, r.Applied,
			r.Torn)
	}
}
