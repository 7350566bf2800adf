package main

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHistogram ensures that quantiles are within the promised error.
func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var h, half histogram
	var exact []time.Duration
	for i := range 20_000 {
		d := time.Duration(rng.Uint64N(1 << (5 + rng.Uint64N(30))))
		exact = append(exact, d)
		if i%2 == 0 {
			h.add(d)
		} else {
			half.add(d)
		}
	}
	h.merge(&half)
	slices.Sort(exact)
	for _, q := range []float64{0, .5, .99, .999} {
		want := exact[int(q*float64(len(exact)))]
		require.InDelta(t, float64(want), float64(h.quantile(q)), float64(want)/64+1, q)
	}
	require.Equal(t, exact[len(exact)-1], h.quantile(1))
}

// TestData_Check ensures that a value is proved: another entry's, a cut one and a changed one are found.
func TestData_Check(t *testing.T) {
	d := newData(10, 200)
	buf := make([]byte, d.size)
	version, err := d.check(d.value(buf, 3, 9), 3)
	require.NoError(t, err)
	require.EqualValues(t, 9, version)
	_, err = d.check(buf, 4)
	require.Error(t, err)
	_, err = d.check(buf[:199], 3)
	require.Error(t, err)
	buf[199]++
	_, err = d.check(buf, 3)
	require.Error(t, err)
}

// TestMeasure ensures that a load ends by count, by time and by its first error, and counts its operations.
func TestMeasure(t *testing.T) {
	tl, err := measure(load{goroutines: 3, most: 10, every: 2,
		op: func(g, _ int) (class, error) { return class(g % 2), nil }})
	require.NoError(t, err)
	require.Equal(t, 30, tl.ops)
	require.EqualValues(t, 10, tl.latencies[read].total)
	require.EqualValues(t, 5, tl.latencies[write].total)

	tl, err = measure(load{goroutines: 2, duration: 5 * time.Millisecond,
		op: func(int, int) (class, error) { return read, nil }})
	require.NoError(t, err)
	require.GreaterOrEqual(t, tl.elapsed, 5*time.Millisecond)

	broken := errors.New("broken")
	_, err = measure(load{goroutines: 2, op: func(_, i int) (class, error) {
		if i == 5 {
			return read, broken
		}
		return read, nil
	}})
	require.ErrorIs(t, err, broken)
}

// TestCollect ensures that a process is killed when it has acknowledged enough, or is ready, and that what it
// said meanwhile counts.
func TestCollect(t *testing.T) {
	say := func(words ...uint64) io.Reader {
		var b bytes.Buffer
		for _, w := range words {
			b.Write(binary.LittleEndian.AppendUint64(nil, w))
		}
		b.WriteString("torn")
		return &b
	}
	kills := 0
	kill := func() error { kills++; return nil }
	acks, err := collect(say(1, 2, 3, 4), 2, time.Minute, kill)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3, 4}, acks)
	acks, err = collect(say(ready), 2, time.Minute, kill)
	require.NoError(t, err)
	require.Empty(t, acks)
	require.Equal(t, 2, kills)
}

// TestResults_Ratio ensures that ratios are taken round by round, and fall back to medians without a round in
// common.
func TestResults_Ratio(t *testing.T) {
	r := &results{}
	for round, v := range []float64{10, 1000, 20} {
		r.add(round, "a", map[string]metrics{"row": {"ops/s": v}})
		r.add(round, "b", map[string]metrics{"row": {"ops/s": v / 2}})
	}
	v, ok := r.ratio("row", "a", "ops/s", "row", "b", "ops/s")
	require.True(t, ok)
	require.InDelta(t, 2, v, 1e-9)

	r.add(7, "c", map[string]metrics{"row": {"ops/s": 5}})
	v, ok = r.ratio("row", "a", "ops/s", "row", "c", "ops/s")
	require.True(t, ok)
	require.InDelta(t, 4, v, 1e-9)
	_, ok = r.ratio("row", "a", "ops/s", "row", "d", "ops/s")
	require.False(t, ok)
}

// TestTarget_Verdict ensures that limits are read in the right direction.
func TestTarget_Verdict(t *testing.T) {
	up := target{floor: 2, goal: 4}
	require.Equal(t, "**floor not met**", up.verdict(1.9))
	require.Equal(t, "floor met, goal not", up.verdict(3))
	require.Equal(t, "goal met", up.verdict(4))
	down := target{floor: 3, goal: none, atMost: true}
	require.Equal(t, "**floor not met**", down.verdict(3.2))
	require.Equal(t, "floor met", down.verdict(3))
	open := target{floor: none, goal: 1}
	require.Equal(t, "goal not met", open.verdict(.5))
}

// TestPlot ensures that the plot is well-formed, also without results.
func TestPlot(t *testing.T) {
	r := &results{}
	r.add(0, us, map[string]metrics{"get-1": {"ops/s": 3e6}})
	r.add(0, "pebble", map[string]metrics{"get-1": {"ops/s": 3e5}})
	for _, r := range []*results{r, {}} {
		in := xml.NewDecoder(bytes.NewBufferString(r.plot()))
		for {
			_, err := in.Token()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
	}
}
