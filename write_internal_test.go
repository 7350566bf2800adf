package keepcache

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Where there is little room, who comes later waits behind those who wait, though there is room for him. Where there is
// enough, nobody does.
func TestWrite_InTurn(t *testing.T) {
	db, err := Open(filepath.Join(t.TempDir(), "test.cache"), &Options{
		MemoryBytes: 1 << 20, CommitBytes: 1 << 20, CommitInterval: time.Hour, SweepInterval: -1,
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	b, w := db.Bucket("b"), db.writer
	require.NoError(t, b.Set("first", 1, 0))
	resume := db.commits.pause()

	w.waiting.Add(1) // as one who waits
	w.room.Lock()
	require.False(t, w.scarce())
	require.NoError(t, b.Set("enough", 1, 0))

	for i := 0; !w.scarce(); i++ {
		require.NoError(t, b.Set(fmt.Sprint(i), make([]byte, 1000), 0))
	}
	done := make(chan error)
	go func() { done <- b.Set("scarce", 1, 0) }()
	for w.waiting.Load() < 2 {
		runtime.Gosched()
	}
	found, err := b.Exists("scarce")
	require.NoError(t, err)
	require.False(t, found)

	w.room.Unlock()
	w.waiting.Add(-1)
	require.NoError(t, <-done, "there was room all the time")
	resume()
}
