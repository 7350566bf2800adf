package inspect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/internal/torture/effort"
	"github.com/keepcache/keepcache/internal/wire"
)

// heap returns what is in the heap, garbage that was not collected yet included.
func heap() uint64 {
	s := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(s)
	return s[0].Value.Uint64()
}

// peak returns by how much the heap grows at most while fn runs.
func peak(fn func()) uint64 {
	debug.FreeOSMemory()
	before := heap()
	most := before
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(500 * time.Microsecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				most = max(most, heap())
			}
		}
	}()
	fn()
	close(stop)
	<-done
	return most - before
}

// TestBounds_LargeValue looks at a large value 20 times at once, in each way that there is, for at most 64 MiB of
// memory.
func TestBounds_LargeValue(t *testing.T) {
	db := open(t, &keepcache.Options{MemoryBytes: 16 << 20})
	b := db.Bucket("b")
	list, large := effort.Of(1<<18, 1<<20), effort.Of(4<<20, 16<<20) // each look at the first took 300 times its size
	if os.Getenv("KEEPCACHE_LONG") != "" {
		list, large = 8<<20, 48<<20
	}
	require.NoError(t, b.Set("list", make([]int, list), 0))
	require.NoError(t, b.SetBytes("large", make([]byte, large), 0)) // of this one a copy is in memory at a time
	_, err := db.Sweep(t.Context())
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/", inspect.Handler(db, &inspect.Options{ShowValues: true, Timeout: time.Minute}))
	mux.Handle("/redacted/", http.StripPrefix("/redacted", inspect.Handler(db, &inspect.Options{
		ShowValues: true, Timeout: time.Minute, Redact: func(_, _ string, value []byte) []byte { return value },
	})))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	var text sync.Map
	for _, path := range []string{
		"/entry?bucket=b&key=list", "/v1/entry?bucket=b&key=list&values=1", "/v1/keys?bucket=b&prefix=list&values=1",
		"/redacted/entry?bucket=b&key=list", "/redacted/v1/entry?bucket=b&key=list&values=1", "/v1/exists?bucket=b&key=large",
		"/entry?bucket=b&key=large", "/v1/entry?bucket=b&key=large&values=1", "/v1/keys?bucket=b", "/", "/v1/expiring",
		"/v1/biggest",
	} {
		begun := time.Now()
		grown := peak(func() {
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					resp, err := http.Get(srv.URL + path)
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					n, err := io.Copy(io.Discard, resp.Body)
					busy := resp.StatusCode == 429 && path == "/v1/biggest" // one at a time
					if err != nil || resp.StatusCode != 200 && !busy {
						t.Error(path, resp.Status, err)
					}
					text.Store(path, n)
				})
			}
			all.Wait()
		})
		n, _ := text.Load(path)
		t.Logf("%-50s %4d MiB, %d bytes, %v", path, grown>>20, n, time.Since(begun))
		require.Less(t, grown, uint64(64<<20), path)
	}
	n, _ := text.Load("/v1/entry?bucket=b&key=list&values=1")
	require.Greater(t, n, int64(2*list), "the protocol has all of it")

	c, err := wire.New(srv.URL)
	require.NoError(t, err)
	e, err := c.Entry(t.Context(), "b", "list", true)
	require.NoError(t, err)
	require.Len(t, e.Value, 2*list+1)
	found := 0
	for e, err := range c.All(t.Context(), wire.Query{Bucket: "b", Values: true}, nil) {
		require.NoError(t, err)
		require.True(t, json.Valid(e.Value))
		found++
	}
	require.Equal(t, 2, found, "pages with one large value each")
}

// TestBounds_Literals are sent behind a large value, too.
func TestBounds_Literals(t *testing.T) {
	db := open(t, nil)
	c, _ := serve(t, db, everything)
	var text strings.Builder
	text.WriteString("[1.0")
	for i := range 300_000 {
		fmt.Fprintf(&text, ",%d.0", i)
	}
	text.WriteString("]")
	require.NoError(t, db.Set("k", json.RawMessage(text.String()), 0)) // as literals, all of them
	require.NoError(t, db.Set("l", 1, 0))
	e, err := c.Entry(t.Context(), "", "k", true)
	require.NoError(t, err)
	require.Equal(t, text.String(), string(e.Value))
	require.Len(t, e.Literals, 300_001)
	page, err := c.Keys(t.Context(), wire.Query{Values: true})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	require.Len(t, page.Entries[0].Literals, 300_001)
	require.NoError(t, c.Set(t.Context(), wire.Write{Key: "k", Value: e.Value, Literals: e.Literals}))
	again, err := c.Entry(t.Context(), "", "k", true)
	require.NoError(t, err)
	require.Equal(t, e.Value, again.Value)
	require.Equal(t, e.Literals, again.Literals)
}

// TestBounds_Body refuses what is too large for the cache without building it.
func TestBounds_Body(t *testing.T) {
	db := open(t, &keepcache.Options{MaxValueBytes: 1 << 20})
	c, _ := serve(t, db, everything)
	body := []byte("[" + strings.Repeat("0,", 4<<20) + "0]")
	var text bytes.Buffer
	require.NoError(t, json.NewEncoder(&text).Encode(wire.Write{Key: "k", Value: body}))
	srv := httptest.NewServer(inspect.Handler(db,
		&inspect.Options{ShowValues: true, AllowWrites: true, Timeout: time.Minute}))
	defer srv.Close()
	grown := peak(func() {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				path := []string{"set", "add"}[i%2]
				resp, err := http.Post(srv.URL+"/v1/"+path, "application/json; charset=utf-8", bytes.NewReader(text.Bytes()))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				answer, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != 413 || !bytes.Contains(answer, []byte("too_large")) {
					t.Errorf("%s %.200s", resp.Status, answer)
				}
			})
		}
		all.Wait()
	})
	t.Logf("%d MiB", grown>>20)
	require.Less(t, grown, uint64(64<<20))
	for _, bad := range []string{`[]`, `{"key":"a","value":1,"x":2}`, "{\"key\":\"\xff\",\"value\":1}",
		`{"key":1,"value":1}`, `{"key":"a","value":[}`,
		`{"key":"a","value":1,"literals":["x"]}`, `{` + strings.Repeat(`"key":"a",`, 100) + `"value":1}`,
		`{"` + strings.Repeat("a", 1000) + `":1}`, ``, `null`} {
		resp, err := http.Post(srv.URL+"/v1/set", "application/json", strings.NewReader(bad))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 400, resp.StatusCode, bad)
	}
	require.NoError(t, c.Set(t.Context(),
		wire.Write{Key: "k", Value: json.RawMessage(" {\"a\" : [ 1.0 , \"}]\\\"\" ] } ")}))
	e, err := c.Entry(t.Context(), "", "k", true)
	require.NoError(t, err)
	require.Equal(t, `{"a":[1.0,"}]\""]}`, string(e.Value))
}

// TestBounds_Pattern charges a pattern for the steps that it takes, and ends with the time that a page has.
func TestBounds_Pattern(t *testing.T) {
	db := open(t, nil)
	for i := range 100 {
		require.NoError(t, db.Bucket("b").Set(fmt.Sprintf("%03d", i)+strings.Repeat("a", 31_000), i, 0))
	}
	c, _ := serve(t, db, &inspect.Options{Timeout: time.Minute})
	pattern := "*" + strings.Repeat("a", 500) + "b" + strings.Repeat("?", 500) + "*c"
	page, err := c.Keys(t.Context(), wire.Query{Bucket: "b", Glob: pattern})
	require.NoError(t, err)
	require.Empty(t, page.Entries)
	require.Less(t, page.Looked, int64(100))
	require.NotNil(t, page.Next, "it goes on where it stopped")
	require.Positive(t, page.Looked)
}

// slow is a client that takes nothing until it is told to, or until its deadline.
type slow struct {
	header   http.Header
	take     chan struct{}
	status   atomic.Int64
	got      atomic.Int64
	deadline atomic.Int64
}

func newSlow() *slow { return &slow{header: http.Header{}, take: make(chan struct{})} }

func (s *slow) Header() http.Header    { return s.header }
func (s *slow) WriteHeader(status int) { s.status.Store(int64(status)) }
func (s *slow) FlushError() error      { return nil }
func (s *slow) SetWriteDeadline(at time.Time) error {
	s.deadline.Store(at.UnixNano())
	return nil
}

func (s *slow) Write(p []byte) (int, error) {
	s.status.CompareAndSwap(0, 200)
	select {
	case <-s.take:
		s.got.Add(int64(len(p)))
		return len(p), nil
	case <-time.After(time.Until(time.Unix(0, s.deadline.Load()))):
		return 0, errors.New("deadline")
	}
}

// TestBounds_SlowReaders holds few answers for who does not read them, refuses the others, and lets go of all of them
// in the end.
func TestBounds_SlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		for i := range 64 {
			require.NoError(t, db.Bucket("b").SetBytes(fmt.Sprint(i), bytes.Repeat([]byte("x"), 150_000), 0))
		}
		require.NoError(t, db.Bucket("b").SetBytes("large", make([]byte, 8<<20), 0))
		h := inspect.Handler(db, &inspect.Options{ShowValues: true})
		var all sync.WaitGroup
		ask := func(path string) *slow {
			s := newSlow()
			all.Go(func() {
				defer func() { _ = recover() }() // an answer that is broken off
				h.ServeHTTP(s, httptest.NewRequest("GET", "http://localhost"+path, nil))
			})
			return s
		}
		var clients []*slow
		for range 30 {
			clients = append(clients, ask("/v1/keys?bucket=b&values=1"))
		}
		clients = append(clients, ask("/v1/entry?bucket=b&key=large&values=1"), ask("/v1/events"))
		time.Sleep(12 * time.Second)
		synctest.Wait()
		sending, busy := 0, 0
		for _, c := range clients {
			switch c.status.Load() {
			case 200:
				sending++
			case 429:
				busy++
			}
		}
		require.Less(t, sending, 12)
		require.Equal(t, len(clients), sending+busy)
		require.Equal(t, int64(200), clients[31].status.Load(), "a stream has its own bound")
		ok := ask("/v1/entry?bucket=b&key=1") // the page goes on for all others
		synctest.Wait()
		require.Equal(t, int64(200), ok.status.Load())
		time.Sleep(2 * time.Minute)
		all.Wait() // every one of them has ended by its deadline
		after := newSlow()
		close(after.take)
		h.ServeHTTP(after, httptest.NewRequest("GET", "http://localhost/v1/keys?bucket=b&values=1", nil))
		require.Equal(t, int64(200), after.status.Load())
		require.Greater(t, after.got.Load(), int64(3<<20))
		require.NoError(t, db.Close())
	})
}

// TestBounds_Context ends the work when the client is gone.
func TestBounds_Context(t *testing.T) {
	db := open(t, nil)
	require.NoError(t, db.Bucket("b").Set("k", make([]int, 1<<20), 0))
	h := inspect.Handler(db, &inspect.Options{ShowValues: true})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, path := range []string{"/v1/entry?bucket=b&key=k&values=1", "/entry?bucket=b&key=k",
		"/v1/keys?bucket=b&values=1", "/v1/stats"} {
		w := httptest.NewRecorder()
		func() {
			defer func() { require.Contains(t, []any{nil, http.ErrAbortHandler}, recover()) }()
			h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil).WithContext(ctx))
		}()
		require.Less(t, w.Body.Len(), 1<<20, path)
	}
}

// TestBounds_Names cuts a page by what its names take.
func TestBounds_Names(t *testing.T) {
	db := open(t, nil)
	for i := range 300 {
		require.NoError(t, db.Bucket("b").Set(fmt.Sprintf("%03d", i)+strings.Repeat("k", 31_000), i, time.Hour))
	}
	c, base := serve(t, db, &inspect.Options{PageEntries: 1000})
	page, err := c.Keys(t.Context(), wire.Query{Bucket: "b", Limit: 1000})
	require.NoError(t, err)
	require.Less(t, len(page.Entries), 150)
	require.NotNil(t, page.Next)
	n := 0
	for _, err := range c.All(t.Context(), wire.Query{Bucket: "b", Limit: 1000}, nil) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 300, n)
	for _, list := range []func(context.Context, string, int) (wire.Keys, error){c.Biggest, c.Expiring} {
		page, err = list(t.Context(), "b", 1000)
		require.NoError(t, err)
		require.Less(t, len(page.Entries), 150)
		require.True(t, page.Partial)
	}
	_, text, _ := fetch(t, base+"keys?bucket=b&limit=1000")
	require.Less(t, len(text), 16<<20)
}
