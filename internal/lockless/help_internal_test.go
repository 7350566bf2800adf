package lockless

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/ground"
	"github.com/keepcache/keepcache/internal/jsonpack"
	"github.com/keepcache/keepcache/internal/verify"
)

// writer is an engine that has the cache open for writing, beside readers without the lock.
type writer struct {
	*engine.Engine
	at engine.Ref // of bucket "default"
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "test.cache") }

// openWriter opens the cache at path for writing. By itself it commits, sweeps and compacts nothing. When the test is over it is closed,
// and what it leaves is proved.
func openWriter(t *testing.T, path string) *writer {
	t.Helper()
	g := ground.New()
	t.Cleanup(g.Close)
	in, real, err := disk.OpenDir(path)
	require.NoError(t, err)
	e, err := engine.Open(in, real, engine.Config{
		LockTimeout: time.Second, MaxBytes: 1 << 30, MemoryBytes: 64 << 20, JournalBytes: 64 << 10, CommitBytes: 24 << 20,
		CompactBytes: engine.Unlimited, SyncInterval: 100 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler), Ground: g, Listener: deaf{},
	})
	require.NoError(t, err)
	w := &writer{Engine: e, at: engine.Ref{Name: "default"}}
	t.Cleanup(func() {
		w.close(t)
		l := openReader(t, path)
		requireSound(t, l)
		require.NoError(t, l.Close(l.Shut()))
	})
	return w
}

// openReader opens a reader of the cache at path. The test closes it.
func openReader(t *testing.T, path string) *Reader {
	t.Helper()
	in, real, err := disk.OpenDir(path)
	require.NoError(t, err)
	l, err := Open(in, real)
	require.NoError(t, err)
	return l
}

// set stores a value under a key for good.
func (w *writer) set(t *testing.T, key, value string) {
	t.Helper()
	packed, err := jsonpack.Append(nil, value, format.MaxValueBytes)
	require.NoError(t, err)
	h := format.Header{WrittenAt: format.Millis(w.Now()), ExpiresAt: format.Never, StaleUntil: format.Never}
	require.NoError(t, w.Write(&w.at, &engine.Write{Key: key, Stored: format.Frame(h, &format.Options{}, packed), Header: h}))
}

// close proves the cache and closes it, unless that has happened.
func (w *writer) close(t *testing.T) {
	t.Helper()
	if w.Closed() {
		return
	}
	requireSound(t, w)
	require.NoError(t, w.Close(w.Shut()))
}

func requireSound(t *testing.T, of interface {
	Verify(context.Context) (verify.Report, error)
},
) {
	t.Helper()
	report, err := of.Verify(context.Background())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
}

// deaf is a listener whom nothing interests.
type deaf struct{}

func (deaf) WantsWrites() bool                    { return false }
func (deaf) Published([]string, []engine.Written) {}
func (deaf) Cleared(string)                       {}
func (deaf) WantsExpired() bool                   { return false }
func (deaf) WantsEvicted() bool                   { return false }
func (deaf) WantsProgress() bool                  { return false }
func (deaf) Expired(string, string, bool)         {}
func (deaf) Evicted(string, string)               {}
func (deaf) Progress(string, int64, int64)        {}
func (deaf) Compacted(int64, int64)               {}
func (deaf) Unavailable(error)                    {}
func (deaf) Healed(string)                        {}
func (deaf) Quarantined(string, error)            {}
func (deaf) BadJournal(error)                     {}
