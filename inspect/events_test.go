package inspect_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/wire"
)

// watching waits until somebody watches the cache, by writing what he has to see.
func watching(t *testing.T, db *keepcache.DB, key string, seen <-chan wire.Event) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		require.NoError(t, db.Set(key, 1, 0))
		select {
		case e := <-seen:
			require.Equal(t, key, string(e.Key))
			return
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("no event within 10 s")
		}
	}
}

// stream collects the events of a watch until the test is over.
func stream(t *testing.T, c *wire.Client, w wire.Watch) <-chan wire.Event {
	ctx, stop := context.WithCancel(context.Background())
	seen := make(chan wire.Event, 1000)
	var done sync.WaitGroup
	done.Go(func() {
		for e, err := range c.Events(ctx, w) {
			if err != nil {
				return
			}
			select {
			case seen <- e:
			default:
			}
		}
	})
	t.Cleanup(func() { stop(); done.Wait() })
	return seen
}

// TestEvents streams what is asked for, with names of any bytes.
func TestEvents(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, nil)
	all := stream(t, c, wire.Watch{})
	some := stream(t, c, wire.Watch{Kinds: []string{"miss"}, Bucket: "b", Prefix: "x"})
	watching(t, db, "first", all)
	b := db.Bucket("b")
	var v any
	var want []string
	for range 200 { // until the second stream is there
		_, err := b.Get("x\xff", &v)
		require.NoError(t, err)
		_, err = b.Get("y", &v)
		require.NoError(t, err)
		if len(some) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	e := <-some
	require.Equal(t, []string{"miss", "b", "x\xff"}, []string{e.Kind, string(e.Bucket), string(e.Key)})
	require.InDelta(t, time.Now().UnixMilli(), e.Time, 10_000)
	for len(some) > 0 {
		require.Equal(t, "x\xff", string((<-some).Key))
	}
	_ = want
	_, err := http.Get("http://127.0.0.1:1")
	require.Error(t, err)
	for _, err := range c.Events(t.Context(), wire.Watch{Kinds: []string{"nonsense"}}) {
		require.ErrorIs(t, err, wire.ErrBadRequest)
	}
}

// TestEvents_Progress tells how far long work is, and not only that there is some.
func TestEvents_Progress(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, nil)
	seen := stream(t, c, wire.Watch{Kinds: []string{"set", "progress"}})
	watching(t, db, "first", seen)
	require.NoError(t, db.Backup(t.Context(), io.Discard))
	for deadline := time.After(10 * time.Second); ; {
		select {
		case e := <-seen:
			if e.Kind != "progress" || e.Done == 0 {
				require.Zero(t, e.Done)
				continue
			}
			require.NotEmpty(t, e.Detail)
			require.Positive(t, e.Total)
			require.LessOrEqual(t, e.Done, e.Total)
			text, err := json.Marshal(e)
			require.NoError(t, err)
			require.Contains(t, string(text), fmt.Sprintf(`"done_bytes":%d,"total_bytes":%d`, e.Done, e.Total))
			return
		case <-deadline:
			t.Fatal("no progress within 10 s")
		}
	}
}

// TestEvents_Busy drops what comes faster than it is sent, says how much, and holds up nobody.
func TestEvents_Busy(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, &inspect.Options{StreamRate: 100})
	seen := stream(t, c, wire.Watch{Kinds: []string{"set"}})
	watching(t, db, "first", seen)
	begun := time.Now()
	for i := range 20_000 {
		require.NoError(t, db.Set(fmt.Sprint(i%100), i, 0))
	}
	require.Less(t, time.Since(begun), 30*time.Second)
	deadline, dropped, sets := time.After(10*time.Second), uint64(0), uint64(0)
	for dropped+sets < 20_000 {
		select {
		case e := <-seen:
			if e.Kind == "dropped" {
				dropped += e.Dropped
			} else {
				sets++
			}
		case <-deadline:
			t.Fatalf("%d sent and %d dropped", sets, dropped)
		}
	}
	require.Positive(t, dropped)
	require.Less(t, sets, uint64(10_000))
}

// TestEvents_Kinds takes the name that an event has, and the one that failed loads had before.
func TestEvents_Kinds(t *testing.T) {
	db := open(t, nil)
	_, url := serve(t, db, &inspect.Options{Streams: 20})
	for _, name := range []string{"load-failed", "quarantine", "healed,unavailable,progress"} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"v1/events?kinds="+name, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, name)
		cancel()
		resp.Body.Close()
	}
}

// TestEvents_Limit refuses a stream too many, and takes one when another has ended.
func TestEvents_Limit(t *testing.T) {
	db := open(t, nil)
	c, url := serve(t, db, &inspect.Options{Streams: 1})
	resp, err := http.Get(url + "v1/events?kinds=set,delete")
	require.NoError(t, err)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	for _, err := range c.Events(t.Context(), wire.Watch{}) {
		require.ErrorIs(t, err, wire.ErrBusy)
	}
	require.NoError(t, db.Set("<b>\n", 1, 0))
	lines := bufio.NewScanner(resp.Body)
	var data string
	for data == "" && lines.Scan() {
		data, _ = strings.CutPrefix(lines.Text(), "data: ")
		if !strings.HasPrefix(lines.Text(), "data: ") {
			data = ""
		}
	}
	require.Contains(t, data, `"kind":"set","bucket":"default","key":"\u003cb\u003e\n"`)
	resp.Body.Close()
	require.Eventually(t, func() bool {
		ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer stop()
		for _, err := range c.Events(ctx, wire.Watch{}) {
			return ctx.Err() != nil && err == ctx.Err()
		}
		return false
	}, 10*time.Second, 50*time.Millisecond)
}
