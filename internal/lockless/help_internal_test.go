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

// writer is an engine that has the cache open for writing beside readers without the lock.
type writer struct {
	*engine.Engine
	at engine.Ref // of bucket "default"
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "test.cache") }

// openWriter opens the cache at path for writing. Nothing is committed, swept or compacted in the background. When the
// test ends, the cache is closed and verified.
func openWriter(t *testing.T, path string) *writer {
	t.Helper()
	g := ground.New()
	t.Cleanup(g.Close)
	in, real, err := disk.OpenDir(path)
	require.NoError(t, err)
	e, err := engine.Open(in, real, engine.Config{
		LockTimeout: time.Second, MaxBytes: 1 << 30, MemoryBytes: 64 << 20, JournalBytes: 64 << 10, CommitBytes: 24 << 20,
		CompactBytes: engine.Unlimited, SyncInterval: 100 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler), Ground: g, Listener: nopListener{},
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

// set stores a value that never expires.
func (w *writer) set(t *testing.T, key, value string) {
	t.Helper()
	packed, err := jsonpack.Append(nil, value, format.MaxValueBytes)
	require.NoError(t, err)
	h := format.Header{WrittenAt: format.Millis(w.Now()), ExpiresAt: format.Never, StaleUntil: format.Never}
	stored := format.Frame(h, &format.Options{}, packed)
	require.NoError(t, w.Write(&w.at, &engine.Write{Key: key, Stored: stored, Header: h}))
}

// close verifies and closes the cache, unless it is closed already.
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

// nopListener ignores all events.
type nopListener struct{}

func (nopListener) WantsWrites() bool                    { return false }
func (nopListener) Published([]string, []engine.Written) {}
func (nopListener) Cleared(string)                       {}
func (nopListener) WantsExpired() bool                   { return false }
func (nopListener) WantsEvicted() bool                   { return false }
func (nopListener) WantsProgress() bool                  { return false }
func (nopListener) Expired(string, string, bool)         {}
func (nopListener) Evicted(string, string)               {}
func (nopListener) Progress(string, int64, int64)        {}
func (nopListener) Compacted(int64, int64)               {}
func (nopListener) Unavailable(error)                    {}
func (nopListener) Healed(string)                        {}
func (nopListener) Quarantined(string, error)            {}
func (nopListener) BadJournal(error)                     {}
