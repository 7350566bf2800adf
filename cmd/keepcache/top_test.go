package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

func testPicture() picture {
	p := picture{
		who: "process 4711, example.com/shop v1.2.3", path: "/var/lib/shop/app.cache", up: 27*time.Hour + 5*time.Minute,
		took: 2 * time.Second, history: []float64{1, 2, 4, 8, 4, 2, 1, 0},
		hot: []hotKey{
			{bucket: "default", key: "front page", part: 0.42, reads: 9, total: 10},
			{bucket: "sessions", key: "\x1b[2Jevil", part: 0.1, total: 1},
		},
		big: []wire.Entry{{Bucket: "default", Key: "日本語のとても長いキーがここにあります日本語のとても長いキーがここにあります", Size: 5 << 20}},
		recent: []wire.Event{{Time: 1, Kind: "evict", Bucket: "default", Key: "old\nkey", Detail: "size"},
			{Kind: "dropped", Dropped: 12}},
	}
	p.before.Hits, p.before.Sets = 1000, 100
	p.now = keepcache.Stats{
		Hits: 25_000, Misses: 1000, FileHits: 240, Sets: 2100, Deletes: 10, Entries: 1_234_567, Bytes: 690 << 20,
		Cost:      700 << 20,
		FileBytes: 900 << 20, FreeBytes: 90 << 20,
		Buckets: map[string]keepcache.BucketStats{"default": {Entries: 1_000_000, Bytes: 600 << 20},
			"sessions": {Entries: 234_567, Bytes: 100 << 20}},
		Memory:  keepcache.MemoryStats{CachedBytes: 50 << 20, PinnedBytes: 3 << 20},
		Budgets: keepcache.BudgetStats{Bytes: 1 << 30, MemoryBytes: 64 << 20},
	}
	p.now.Reads.Counts[3], p.now.Reads.Counts[14] = 500, 10
	return p
}

// A picture fits every terminal: no line is wider, none too many, and nothing in it does more than to be shown.
func TestTop_Fits(t *testing.T) {
	loading := testPicture()
	loading.now.Loads = keepcache.LoadStats{Loads: 1 << 40, Failures: 1 << 40, Stale: 1 << 40, Running: 1 << 20,
		Latencies: keepcache.Latencies{Counts: [30]uint64{22: 9}}}
	for _, p := range []picture{{}, testPicture(), loading} {
		for l := range lists {
			for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}, {1, 1}, {79, 3}, {20, 50}} {
				for _, v := range []view{{list: l, help: true}, {list: l}, {list: l, filter: "e", typing: true, help: true},
					{list: l, style: style{on: true}, help: true}} {
					for range 3 {
						lines := v.frame(p, size[0], size[1])
						require.LessOrEqual(t, len(lines), size[1])
						for _, line := range lines {
							plain := line
							if v.style.on {
								for _, code := range []string{"0", "1", "2", "7", "32", "1;31"} {
									plain = strings.ReplaceAll(plain, "\x1b["+code+"m", "")
								}
							}
							require.LessOrEqual(t, widthOf(plain), size[0], "%q", plain)
							require.NotContains(t, plain, "\x1b")
							require.NotContains(t, plain, "\n")
						}
						v.sort++
					}
				}
			}
		}
	}
}

// What is in the picture is what happened.
func TestTop_Shows(t *testing.T) {
	v := view{help: true}
	text := func() string { return strings.Join(v.frame(testPicture(), 80, 24), "\n") }
	for _, want := range []string{
		"keepcache top  /var/lib/shop", "up 1d3h", " 12,500 get", "1,000 set", "▂▃▅█▅▃▂▁", " 96.0 %", "1.0 % from file",
		"p50 <1µs p99 <2.1ms", "700.0 MiB of 1.0 GiB", "1,234,567 entries", "53.0 MiB of 64.0 MiB", "10 % of it free",
		"nothing is due", "[buckets]", "SIZE*", " 600.0 MiB     1,000,000  default", "q quit",
	} {
		require.Contains(t, text(), want)
	}
	require.False(t, v.press("s"))
	require.Contains(t, text(), "ENTRIES*")
	require.False(t, v.press(keyTab))
	require.Contains(t, text(), "[hot keys]")
	require.Contains(t, text(), ` 42.0 %    90 %  default / front page`)
	require.Contains(t, text(), `sessions / "\x1b[2Jevil"`)
	for _, k := range []key{"/", "f", "r", "x", keyBackspace, keyEnter} {
		require.False(t, v.press(k))
	}
	require.Contains(t, text(), "/fr")
	require.Contains(t, text(), "front page")
	require.NotContains(t, text(), "evil")
	require.False(t, v.press(keyEscape))
	require.False(t, v.press("g"))
	require.Contains(t, text(), "   5.0 MiB           never  default / 日本語")
	require.False(t, v.press("e"))
	require.Contains(t, text(), `evict        default  "old\nkey"  size`)
	require.Contains(t, text(), "12 events dropped")
	require.False(t, v.press("p"))
	require.Contains(t, text(), "PAUSED")
	require.True(t, v.press("q"))
	require.True(t, v.press(keyInterrupt))
}

// A program that only loads is not idle, and what the figures are of stands beside them.
func TestTop_Loads(t *testing.T) {
	p := testPicture()
	v := view{}
	text := func() string { return strings.Join(v.frame(p, 80, 24), "\n") }
	require.NotContains(t, text(), "loads ")
	require.Contains(t, text(), "latency   Get p50 <1µs p99 <2.1ms   Set none timed   1 in 128 timed")
	p.before.Loads.Loads, p.now.Loads.Loads = 100, 1500
	p.before.Loads.Latencies.Counts[6], p.now.Loads.Latencies.Counts[6] = 100, 1300
	p.now.Loads.Latencies.Counts[17], p.now.Loads.Latencies.Counts[29] = 197, 3
	p.now.Loads.Running, p.now.Loads.Failures, p.now.Loads.Stale = 7, 6, 8400
	require.Contains(t, text(), " 700 load ")
	require.Contains(t, text(), "loads     p50 <8.2µs p99 <17ms   7 running   3.0/s failed   4,200/s stale")
	p.before = p.now
	require.Contains(t, text(), "loads     none ended   7 running   0/s failed   0/s stale")
	p.before.Loads.Latencies.Counts[0] = 1 // of a program that was there before
	require.Contains(t, text(), "loads     none ended")
	p.before, p.now = keepcache.Stats{}, keepcache.Stats{Loads: keepcache.LoadStats{Running: 1}}
	require.Contains(t, text(), "loads     none ended   1 running")
}

// What is wrong stands out.
func TestTop_Trouble(t *testing.T) {
	p := testPicture()
	p.now.Damaged, p.now.Journal.Failed = 3, true
	p.now.Commit.Err = wire.ErrInternal
	v := view{}
	text := strings.Join(v.frame(p, 200, 24), "\n")
	require.Contains(t, text, "3 damaged entries met; the journal has failed; the last commit failed")
}

// Keys come out of what a terminal sends, and what it does not know is no key.
func TestTop_Keys(t *testing.T) {
	for sent, want := range map[string][]key{
		"q":                  {"q"},
		"\x1b[A\x1b[Bj":      {keyUp, keyDown, "j"},
		"\x1bOC\x1b[Z":       {keyRight, keyLeft},
		"\x1b":               {keyEscape},
		"\x1b[1;5Cx":         {"x"},
		"\x1b[200~":          nil,
		"\x03\t\r\x7f":       {keyInterrupt, keyTab, keyEnter, keyBackspace},
		"é世\xff\x00":         {"é", "世"},
		"\x1b[":              nil,
		"\x1bx":              nil,
		"\x1b[<0;10;10M/foo": {"/", "f", "o", "o"},
	} {
		require.Equal(t, want, parseKeys(sent), "%q", sent)
	}
}

// Samples add up to parts, and earlier ones fade.
func TestTop_Hot(t *testing.T) {
	c := newCollector(nil)
	events := func(key string, n int) (list []wire.Event) {
		for range n {
			list = append(list, wire.Event{Kind: "hit", Bucket: "b", Key: wire.Name(key)})
		}
		return list
	}
	c.count(append(events("a", 75), events("b", 25)...))
	require.Equal(t, "a", c.p.hot[0].key)
	require.InDelta(t, 0.75, c.p.hot[0].part, 0.001)
	for range 30 {
		c.count(events("b", 100))
	}
	require.Equal(t, "b", c.p.hot[0].key)
	require.Len(t, c.p.hot, 1)
	c.count(nil)
}
