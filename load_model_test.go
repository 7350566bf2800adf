package keepcache_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

var loadSeed = flag.Uint64("load.seed", 0, "run TestLoadModel with this seed alone")

// GetOrLoad and GetOrLoadMany do what docs/loading.md says, as a plain model of it does, whatever the sources do:
// values that fit and do not, that are too large or none, failures, panics, runtime.Goexit, loaders that hang; with
// handlers and loggers that panic or end their goroutine, through writes, invalidations, restarts and Close at any
// moment.
func TestLoadModel(t *testing.T) {
	const ops = 200
	steps := 0
	runs := effort.Of(4, 10)
	if long { // 100,000 operations
		runs = 500
	}
	first := uint64(1)
	if *loadSeed > 0 {
		first, runs = *loadSeed, 1
	}
	for seed := first; seed < first+uint64(runs) && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) {
			m := newLoadModel(t, seed)
			for !m.tied && m.steps < ops {
				m.step()
			}
			m.finish()
			steps += m.steps
		})
		if t.Failed() {
			t.Logf("repeat with -load.seed %d", seed)
		}
	}
	t.Logf("%d operations", steps)
}

// What the source of a key does.
const (
	answersText = iota
	answersNumber
	answersLarge
	answersNotStored
	answersBadTag
	answersNone    // ErrNotFound
	answersNothing // that JSON can express
	fails
	panics
	exits
	hangs      // whatever its ctx says
	hangsOnCtx // until its ctx ends
	slowly     // answers a text after 2 seconds
	sourceModes
)

const (
	slowTime = 2 * time.Second
	hangTime = 130 * time.Second // longer than the default of LoadTimeout
)

// modelEntry is what the cache has of a key.
type modelEntry struct {
	value       any
	negative    bool
	fresh, gone time.Time
	loaded      time.Time
	retry       time.Time
	tagged      bool
	asOf        int // invalidations before the load began
}

// modelFlight is a load under way.
type modelFlight struct {
	key    string
	ends   time.Time
	answer modelAnswer
	opts   keepcache.LoadOptions
	void   bool
	asOf   int
	stale  *modelEntry // what there was; nil where that was of no use
	stored bool        // there was something
	landed bool
	late   bool // given up
	heeds  bool // its ctx
	begun  time.Time
}

// modelAnswer is what a load brings.
type modelAnswer struct {
	value    any
	err      error // errSource is any failure
	unstored bool  // not to be stored, with a failure of the cache
	noStore  bool
	tagged   bool
}

var errSource = errors.New("the source is down")

type modelFailure struct {
	at, until time.Time
	asOf      int
	err       error
}

// loadScript is a cache beside its model.
type loadScript struct {
	t        *testing.T
	r        *rand.Rand
	path     string
	options  *keepcache.Options
	db       *keepcache.DB
	b        *keepcache.Bucket
	entries  map[string]*modelEntry
	failures map[string]modelFailure
	flights  map[string]*modelFlight
	all      []*modelFlight
	inval    int

	mu    sync.Mutex
	modes map[string]int
	want  keepcache.LoadStats
	trace []string
	steps int
	tied  bool // two things would happen at one moment: the run ends
}

func newLoadModel(t *testing.T, seed uint64) *loadScript {
	m := &loadScript{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), path: newPath(t), entries: map[string]*modelEntry{},
		failures: map[string]modelFailure{},
		flights:  map[string]*modelFlight{}, modes: map[string]int{},
	}
	end := []func(){func() {}, func() { panic("a handler") }, runtime.Goexit}[seed%3]
	m.options = &keepcache.Options{MaxValueBytes: 4 << 10, Logger: slog.New(logs{end: end}), Events: keepcache.Events{
		Handle: func(keepcache.Event) { end() },
		Kinds:  keepcache.EventLoad | keepcache.EventLoadFailed | keepcache.EventRefresh,
	}}
	m.db = open(t, m.path, m.options)
	m.b = m.db.Bucket("b").WithTags("tag")
	return m
}

func (m *loadScript) logf(format string, args ...any) {
	m.trace = append(m.trace, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (m *loadScript) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(m.trace[max(0, len(m.trace)-25):], "\n"))
}

// answersOf returns what the source answers that is asked for keys, and after how long; heeds says that it returns with
// its ctx.
func (m *loadScript) answersOf(
	keys []string, typed, many bool,
) (answers map[string]modelAnswer, takes time.Duration, heeds bool) {
	answers = map[string]modelAnswer{}
	var failed error
	for _, key := range keys {
		a := modelAnswer{value: "text", tagged: true}
		switch mode := m.modes[key]; mode {
		case answersNumber:
			if !typed {
				a.value = int64(7)
			}
		case answersLarge:
			a.value, a.unstored = strings.Repeat("large", 1000), true
		case answersNotStored:
			a.noStore = !many
		case answersBadTag:
			if !many {
				a.unstored, a.tagged = true, false
			}
		case answersNone:
			a.err = keepcache.ErrNotFound
		case answersNothing:
			a.err = errSource
			if typed {
				a.err = nil
			}
		case fails, panics, exits:
			failed = errSource
		case hangs:
			takes += hangTime
		case hangsOnCtx:
			takes += hangTime
			heeds, failed = true, errSource
		case slowly:
			takes += slowTime
		}
		answers[key] = a
		if failed != nil {
			break
		}
	}
	if failed != nil {
		for _, key := range keys {
			answers[key] = modelAnswer{err: failed}
		}
	}
	return answers, takes, heeds
}

// loadAs does what a source does; answersOf is its model.
func loadAs(ctx context.Context, mode int, typed bool) (value any, found bool, err error) {
	switch mode {
	case answersNumber:
		if !typed {
			return 7, true, nil
		}
	case answersLarge:
		return strings.Repeat("large", 1000), true, nil
	case answersNone:
		return nil, false, nil
	case answersNothing:
		if !typed {
			return make(chan int), true, nil
		}
	case fails:
		return nil, false, errSource
	case panics:
		panic("the source")
	case exits:
		runtime.Goexit()
	case hangs:
		time.Sleep(hangTime)
	case hangsOnCtx:
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-time.After(hangTime):
			return nil, false, errSource
		}
	case slowly:
		time.Sleep(slowTime)
	}
	return "text", true, nil
}

func (m *loadScript) one(ctx context.Context, l *keepcache.Load) (any, error) {
	mode := m.modesOf([]string{l.Key})[0]
	value, found, err := loadAs(ctx, mode, false)
	l.NoStore = mode == answersNotStored
	if mode == answersBadTag {
		l.Tags = []string{""}
	}
	if err == nil && !found {
		err = fmt.Errorf("none: %w", keepcache.ErrNotFound)
	}
	return value, err
}

func (m *loadScript) many(typed bool) keepcache.ManyLoader {
	return func(ctx context.Context, keys []string) (map[string]any, error) {
		values := map[string]any{}
		for i, mode := range m.modesOf(keys) {
			value, found, err := loadAs(ctx, mode, typed)
			if err != nil {
				return nil, err
			}
			if found {
				values[keys[i]] = value
			}
		}
		return values, nil
	}
}

// modesOf returns what the source does now.
func (m *loadScript) modesOf(keys []string) (modes []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		modes = append(modes, m.modes[key])
	}
	return modes
}

// settle lands the flights that have ended by now.
func (m *loadScript) settle(now time.Time) {
	slices.SortStableFunc(m.all, func(a, b *modelFlight) int { return a.ends.Compare(b.ends) })
	for len(m.all) > 0 && !m.all[0].ends.After(now) {
		f := m.all[0]
		m.all = m.all[1:]
		m.land(f)
	}
}

func hold(o *keepcache.LoadOptions, stale bool) time.Duration {
	switch {
	case o.RetryAfter > 0:
		return o.RetryAfter
	case o.RetryAfter < 0:
		return 0
	case stale:
		return 30 * time.Second
	}
	return time.Second
}

func (m *loadScript) land(f *modelFlight) {
	f.landed = true
	if m.flights[f.key] == f {
		delete(m.flights, f.key)
	}
	a, o := &f.answer, &f.opts
	m.want.Loads++
	if f.late {
		m.want.TimedOut++
	}
	switch {
	case a.err == nil:
		delete(m.failures, f.key)
		if a.unstored && !a.noStore {
			m.want.CacheErrors++
		}
		if a.unstored || a.noStore || f.void {
			return
		}
		e := &modelEntry{value: a.value, fresh: f.ends.Add(o.TTL), loaded: f.ends, tagged: true, asOf: f.asOf}
		e.gone = e.fresh.Add(o.StaleFor)
		m.entries[f.key] = e
	case errors.Is(a.err, keepcache.ErrNotFound):
		delete(m.failures, f.key)
		switch {
		case f.void:
		case o.NegativeTTL > 0:
			end := f.ends.Add(o.NegativeTTL)
			m.entries[f.key] = &modelEntry{negative: true, fresh: end, gone: end, tagged: true, asOf: f.asOf}
		case f.stored:
			delete(m.entries, f.key)
		}
	default:
		m.want.Failures++
		h := hold(o, f.stale != nil)
		switch {
		case h == 0 || f.void:
		case f.stale != nil:
			if e := m.entries[f.key]; e != nil {
				e.retry = f.ends.Add(h)
			}
			delete(m.failures, f.key)
		default:
			m.failures[f.key] = modelFailure{f.ends, f.ends.Add(h), f.asOf, a.err}
		}
	}
}

func (m *loadScript) begin(
	now time.Time, keys []string, seen map[string]*modelEntry, o *keepcache.LoadOptions, typed, many bool,
) {
	var own []string
	for _, key := range keys {
		if m.flights[key] == nil {
			own = append(own, key)
		}
	}
	if len(own) == 0 {
		return
	}
	answers, takes, heeds := m.answersOf(own, typed, many)
	limit := o.LoadTimeout
	if limit == 0 {
		limit = 2 * time.Minute
	}
	for _, key := range own {
		e := seen[key]
		f := &modelFlight{key: key, ends: now.Add(takes), answer: answers[key], opts: *o, asOf: m.inval,
			stored: m.entries[key] != nil, heeds: heeds, begun: now}
		if e != nil && !e.negative {
			f.stale = e
		}
		if limit > 0 && takes > limit {
			f.ends, f.late, f.answer = now.Add(limit), true, modelAnswer{err: errSource}
		}
		m.flights[key] = f
		m.all = append(m.all, f)
	}
}

// held returns the entry that GetOrLoad may use.
func (m *loadScript) held(key string, now time.Time) *modelEntry {
	e := m.entries[key]
	if e == nil || !now.Before(e.gone) || e.tagged && e.asOf < m.inval {
		return nil
	}
	return e
}

func (m *loadScript) failed(key string, now time.Time, h time.Duration) error {
	f, ok := m.failures[key]
	if !ok || h == 0 || f.asOf < m.inval || !now.Before(f.until) || !now.Before(f.at.Add(h)) {
		return nil
	}
	return f.err
}

// modelResult is what a request gets.
type modelResult struct {
	value      any
	none       bool // no value
	stale      bool
	err        error
	remembered bool
}

type modelRequest struct {
	o       keepcache.LoadOptions
	typed   bool // the destination is a string, else an any
	many    bool
	timeout time.Duration // of the request's ctx
	start   time.Time
}

func (q *modelRequest) fits(value any) bool {
	_, ok := value.(string)
	return ok || !q.typed
}

// look returns what a request does at a moment: a result, or that it has to wait. refresh is whether it begins a load
// besides.
func (m *loadScript) look(
	q *modelRequest, key string, now time.Time,
) (res modelResult, done, refresh bool, usable *modelEntry) {
	e := m.held(key, now)
	switch {
	case e == nil:
	case e.negative:
		m.want.NegativeHits++
		return modelResult{none: true, err: keepcache.ErrNotFound}, true, false, e
	case !q.fits(e.value):
		m.want.Mismatched++
		e = nil
	case now.Before(e.fresh):
		since := e.loaded
		ahead := q.o.RefreshAhead > 0 &&
			!now.Before(since.Add(time.Duration(float64(e.fresh.Sub(since))*q.o.RefreshAhead))) &&
			(q.o.RetryAfter < 0 || !now.Before(e.retry)) && m.failed(key, now, hold(&q.o, true)) == nil
		return modelResult{value: e.value}, true, ahead, e
	case q.o.RetryAfter >= 0 && now.Before(e.retry) || m.failed(key, now, hold(&q.o, true)) != nil:
		m.want.Stale++
		return modelResult{value: e.value, stale: true}, true, false, e
	case q.o.SoftTimeout == 0:
		m.want.Stale++
		return modelResult{value: e.value, stale: true}, true, true, e
	}
	if e == nil {
		if q.timeout > 0 && !now.Before(q.start.Add(q.timeout)) {
			return modelResult{none: true, err: context.DeadlineExceeded}, true, false, nil
		}
		if err := m.failed(key, now, hold(&q.o, false)); err != nil {
			m.want.Remembered++
			return modelResult{none: true, err: err, remembered: true}, true, false, nil
		}
	}
	return modelResult{}, false, false, e
}

// errTie says that two things would happen at the same moment, in either order.
var errTie = errors.New("tie")

// wait predicts what a request gets that waits for a flight from began on, and when.
func (m *loadScript) wait(
	q *modelRequest, f *modelFlight, e *modelEntry, began, now time.Time,
) (res modelResult, until time.Time, again bool) {
	m.settle(now)
	joined := m.inval
	isStale := func() bool {
		return e != nil && m.inval == joined && now.Before(e.gone) && !(e.tagged && e.asOf < m.inval)
	}
	if !f.landed {
		for {
			limit, end := q.o.HardTimeout, now.Add(1000*time.Hour)
			stale := isStale()
			if stale {
				limit, end = q.o.SoftTimeout, e.gone
			}
			if limit > 0 && began.Add(limit).Before(end) {
				end = began.Add(limit)
			}
			if !end.After(now) {
				if stale {
					m.want.Stale++
					return modelResult{value: e.value, stale: true}, now, false
				}
				return modelResult{none: true, err: context.DeadlineExceeded}, now, false
			}
			over := q.start.Add(q.timeout)
			if q.timeout == 0 {
				over = now.Add(2000 * time.Hour)
			}
			if f.ends.Equal(end) || f.ends.Equal(over) || end.Equal(over) {
				return modelResult{err: errTie}, now, false
			}
			if over.Before(end) && over.Before(f.ends) {
				return modelResult{none: true, err: context.DeadlineExceeded}, over, false
			}
			if f.ends.Before(end) {
				now = f.ends
				break
			}
			now = end
			m.settle(now)
		}
		m.settle(now)
	}
	a := &f.answer
	switch {
	case a.err == nil && a.tagged && f.asOf < joined:
		return res, now, true
	case a.err == nil:
		return modelResult{value: a.value}, now, false
	case errors.Is(a.err, keepcache.ErrNotFound):
		return modelResult{none: true, err: a.err}, now, false
	case isStale():
		m.want.Stale++
		return modelResult{value: e.value, stale: true}, now, false
	}
	return modelResult{none: true, err: a.err}, now, false
}

// predictOne predicts what GetOrLoad brings, and when.
func (m *loadScript) predictOne(q *modelRequest, key string, now time.Time) (modelResult, time.Time) {
	for {
		res, done, refresh, e := m.look(q, key, now)
		if done {
			if refresh {
				m.begin(now, []string{key}, map[string]*modelEntry{key: e}, &q.o, false, false)
				m.settle(now)
			}
			return res, now
		}
		m.begin(now, []string{key}, map[string]*modelEntry{key: e}, &q.o, false, false)
		var again bool
		if res, now, again = m.wait(q, m.flights[key], e, now, now); !again {
			if !res.none && !q.fits(res.value) && res.err == nil {
				res = modelResult{none: true, err: keepcache.ErrMismatch}
			}
			return res, now
		}
	}
}

// predictMany predicts what GetOrLoadMany brings.
func (m *loadScript) predictMany(
	q *modelRequest, keys []string, now time.Time,
) (values map[string]any, until time.Time, failed error) {
	values = map[string]any{}
	var missing, stale, served []string
	seen := map[string]*modelEntry{}
	for _, key := range keys {
		res, done, refresh, e := m.look(q, key, now)
		seen[key] = e
		switch {
		case !done:
			missing = append(missing, key)
		case res.err == nil:
			values[key] = res.value
			if refresh {
				stale = append(stale, key)
			}
			if res.stale {
				served = append(served, key)
			}
		case !errors.Is(res.err, keepcache.ErrNotFound) && failed == nil:
			failed = res.err
		}
	}
	m.begin(now, stale, seen, &q.o, q.typed, true)
	m.settle(now)
	if len(missing) == 0 {
		return values, now, failed
	}
	m.begin(now, missing, seen, &q.o, q.typed, true)
	waits := map[string]*modelFlight{}
	for _, key := range missing {
		waits[key] = m.flights[key]
	}
	began := now
	var own error
	for _, key := range missing {
		var res modelResult
		var again bool
		res, now, again = m.wait(q, waits[key], seen[key], began, now)
		if again {
			var more map[string]any
			var err error
			more, now, err = m.predictMany(q, []string{key}, now)
			for k, v := range more {
				values[k] = v
			}
			res = modelResult{none: true, err: err}
			if err == nil {
				continue
			}
		}
		switch {
		case res.err == nil:
			values[key] = res.value
		case errors.Is(res.err, errTie):
			return nil, now, errTie
		case !errors.Is(res.err, keepcache.ErrNotFound) && own == nil:
			own = res.err
		}
	}
	if own != nil {
		failed = own
	}
	for _, key := range served {
		if e := seen[key]; now.Before(e.gone) && !(e.tagged && e.asOf < m.inval) {
			continue
		}
		delete(values, key)
		more, then, err := m.predictMany(q, []string{key}, now)
		now = then
		for k, v := range more {
			values[k] = v
		}
		if failed == nil {
			failed = err
		}
	}
	return values, now, failed
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

func (m *loadScript) key() string { return pick(m.r, "a", "b", "c", "d", "e") }

func (m *loadScript) request() *modelRequest {
	return &modelRequest{
		o: keepcache.LoadOptions{
			TTL: time.Minute, StaleFor: pick(m.r, 0, 10*time.Minute), NegativeTTL: pick(m.r, 0, 20*time.Second),
			RetryAfter: pick(m.r, 0, 0, -1, 7*time.Second), RefreshAhead: pick(m.r, 0, 0, 0.5),
			SoftTimeout: pick(m.r, 0, 0, 1100*time.Millisecond, 3300*time.Millisecond),
			HardTimeout: pick(m.r, 0, 0, 1300*time.Millisecond, 4700*time.Millisecond),
			LoadTimeout: pick(m.r, 0, 1700*time.Millisecond, 11*time.Second, -1),
		},
		typed: m.r.IntN(2) == 0, timeout: pick(m.r, 0, 0, 0, 1900*time.Millisecond),
	}
}

// step does one operation on both.
func (m *loadScript) step() {
	synctest.Wait()
	now := time.Now()
	m.settle(now)
	key := m.key()
	switch n := m.r.IntN(100); {
	case m.tied:
	case n < 35:
		m.get(key)
	case n < 50:
		m.getMany()
	case n < 64:
		d := pick(m.r, 10*time.Millisecond, time.Second, 10*time.Second, time.Minute)
		d = time.Duration(1+m.r.Int64N(d.Milliseconds())) * time.Millisecond
		m.logf("sleep %v", d)
		time.Sleep(d)
	case n < 84:
		m.mu.Lock()
		m.modes[key] = m.r.IntN(sourceModes)
		m.logf("source of %s: %d", key, m.modes[key])
		m.mu.Unlock()
	case n < 89:
		value, d := pick(m.r, any("set"), any(int64(3))), pick(m.r, time.Second, time.Minute)
		m.logf("set %s %v", key, value)
		require.NoError(m.t, m.db.Bucket("b").Set(key, value, d))
		m.void(key)
		m.entries[key] = &modelEntry{value: value, fresh: now.Add(d), gone: now.Add(d), loaded: now}
	case n < 93:
		m.logf("delete %s", key)
		require.NoError(m.t, errorOf(m.b.Delete(key)))
		m.void(key)
		delete(m.entries, key)
	case n < 95:
		m.logf("invalidate")
		require.NoError(m.t, m.db.InvalidateTags("tag"))
		m.inval++
	case n < 97:
		m.logf("clear")
		require.NoError(m.t, m.b.Clear(context.Background()))
		for _, f := range m.all {
			m.void(f.key)
		}
		clear(m.entries)
		clear(m.failures)
	case n < 99:
		m.close(now)
	default:
		m.closeAmid(key)
	}
	m.steps++
	synctest.Wait()
}

func (m *loadScript) void(key string) {
	delete(m.failures, key)
	if f := m.flights[key]; f != nil {
		f.void = true
		delete(m.flights, key)
	}
}

// sameError reports whether an error is the one that the model says: any failure of a source is errSource there.
func sameError(err, want error) bool {
	switch {
	case want == nil || err == nil:
		return want == err
	case want == errSource:
		return !errors.Is(err, keepcache.ErrNotFound) && !errors.Is(err, keepcache.ErrMismatch) &&
			!errors.Is(err, keepcache.ErrClosed)
	}
	return errors.Is(err, want)
}

func (q *modelRequest) ctx(t *testing.T) (context.Context, context.CancelFunc) {
	if q.timeout == 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), q.timeout)
}

func (m *loadScript) get(key string) {
	q := m.request()
	q.start = time.Now()
	m.logf("get %s typed %v timeout %v %+v", key, q.typed, q.timeout, q.o)
	want, until := m.predictOne(q, key, q.start)
	if m.tied = errors.Is(want.err, errTie); m.tied {
		return
	}
	ctx, cancel := q.ctx(m.t)
	defer cancel()
	value, result, err := m.call(ctx, q, key)
	var remembered *keepcache.RememberedError
	switch {
	case !sameError(err, want.err), !time.Now().Equal(until), !want.none && value != want.value,
		result.Stale != want.stale,
		errors.As(err, &remembered) != want.remembered:
		m.fatalf("got %.20q %+v %v at %v, want %+v at %v", value, result, err, time.Now(), want, until)
	}
	if err != nil {
		requireLoadError(m.t, err, m.path)
	}
}

// call is one GetOrLoad.
func (m *loadScript) call(
	ctx context.Context, q *modelRequest, key string,
) (value any, result keepcache.LoadResult, err error) {
	if !q.typed {
		result, err = m.b.GetOrLoad(ctx, key, &value, m.one, &q.o)
		return value, result, err
	}
	var text string
	result, err = m.b.GetOrLoad(ctx, key, &text, m.one, &q.o)
	return text, result, err
}

func (m *loadScript) getMany() {
	q := m.request()
	q.start, q.many = time.Now(), true
	var keys []string
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		if m.r.IntN(2) == 0 {
			keys = append(keys, key)
		}
	}
	m.logf("get many %v typed %v timeout %v %+v", keys, q.typed, q.timeout, q.o)
	want, until, failed := m.predictMany(q, keys, q.start)
	if m.tied = errors.Is(failed, errTie); m.tied {
		return
	}
	ctx, cancel := q.ctx(m.t)
	defer cancel()
	got, err := map[string]any{}, error(nil)
	if q.typed {
		for key, value := range want {
			if !q.fits(value) {
				delete(want, key)
				if failed == nil {
					failed = keepcache.ErrMismatch
				}
			}
		}
		var texts map[string]string
		texts, err = keepcache.Of[string](m.b).GetOrLoadMany(ctx, keys, m.manyTexts, &q.o)
		for key, value := range texts {
			got[key] = value
		}
	} else {
		var entries map[string]keepcache.Entry
		entries, err = m.b.GetOrLoadMany(ctx, keys, m.many(false), &q.o)
		for key, e := range entries {
			var value any
			require.NoError(m.t, e.Decode(&value))
			got[key] = value
		}
	}
	if !maps.Equal(got, want) || !sameError(err, failed) || !time.Now().Equal(until) {
		m.fatalf("got %.20q %v at %v, want %.20q %v at %v", got, err, time.Now(), want, failed, until)
	}
}

func (m *loadScript) manyTexts(ctx context.Context, keys []string) (map[string]string, error) {
	values, err := m.many(true)(ctx, keys)
	texts := map[string]string{}
	for key, value := range values {
		texts[key] = value.(string)
	}
	return texts, err
}

// close closes the cache while loads are under way, and opens it again.
func (m *loadScript) close(now time.Time) {
	m.logf("close and open")
	m.compareStats()
	require.NoError(m.t, m.db.Close())
	if took := time.Since(now); took > 5*time.Second {
		m.fatalf("Close took %v", took)
	}
	for _, f := range m.all {
		if f.ends.Equal(now.Add(5 * time.Second)) {
			m.tied = true
		}
		if !f.heeds && f.ends.Before(now.Add(5*time.Second)) &&
			(f.answer.err == nil || errors.Is(f.answer.err, keepcache.ErrNotFound)) {
			m.land(f)
		}
	}
	clear(m.failures)
	clear(m.flights)
	m.all, m.want = nil, keepcache.LoadStats{}
	m.db = open(m.t, m.path, m.options)
	m.b = m.db.Bucket("b").WithTags("tag")
}

// closeAmid closes the cache while a request waits: that is over soon, with what its load brought or ErrClosed.
func (m *loadScript) closeAmid(key string) {
	q := m.request()
	q.start = time.Now()
	after := time.Duration(m.r.IntN(3000)) * time.Millisecond
	m.logf("get %s and close after %v: typed %v timeout %v %+v", key, after, q.typed, q.timeout, q.o)
	var waiter sync.WaitGroup
	ctx, cancel := q.ctx(m.t)
	defer cancel()
	waiter.Go(func() {
		value, _, err := m.call(ctx, q, key)
		if err != nil {
			requireLoadError(m.t, err, m.path)
		} else if text, ok := value.(string); q.typed && !ok || ok && text == "" {
			m.t.Errorf("got %v", value)
		}
	})
	time.Sleep(after)
	require.NoError(m.t, m.db.Close())
	waiter.Wait()
	if took := time.Since(q.start); took > after+2*time.Minute {
		m.fatalf("it took %v", took)
	}
	// What has been stored of it is not known to the model.
	m.db = open(m.t, m.path, m.options)
	m.b = m.db.Bucket("b").WithTags("tag")
	require.NoError(m.t, m.b.Clear(context.Background()))
	clear(m.entries)
	clear(m.failures)
	clear(m.flights)
	m.all, m.want = nil, keepcache.LoadStats{}
}

// compareStats requires that both have counted the same.
func (m *loadScript) compareStats() {
	if m.tied {
		return
	}
	got := m.db.Stats().Loads
	got = keepcache.LoadStats{
		Loads: got.Loads, Failures: got.Failures, Stale: got.Stale, NegativeHits: got.NegativeHits,
		Mismatched:  got.Mismatched,
		CacheErrors: got.CacheErrors, Remembered: got.Remembered, TimedOut: got.TimedOut, Running: got.Running,
	}
	want := m.want
	want.Running = int64(len(m.all))
	if got != want {
		m.fatalf("counted %+v, want %+v", got, want)
	}
}

func (m *loadScript) finish() {
	time.Sleep(6 * hangTime) // a loader of five keys may hang five times
	synctest.Wait()
	if !m.tied {
		m.settle(time.Now())
		m.compareStats()
		require.Zero(m.t, m.db.Stats().Loads.Abandoned)
	}
	require.NoError(m.t, m.db.Close())
}
