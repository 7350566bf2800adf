package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
)

// results are what a run measured.
type results struct {
	Facts   facts
	Scale   Scale
	Rounds  int
	Heavy   int // rounds of heavy groups
	Quick   bool
	Samples []sample
	Failed  []failure
}

// sample is what one peer did in one row of one round.
type sample struct {
	Round   int
	Peer    string
	Row     string
	Metrics metrics
}

// failure is a job that failed.
type failure struct {
	Round       int
	Peer, Group string
	Durable     bool
	Err         string
}

func (r *results) add(round int, peer string, rows map[string]metrics) {
	for row, m := range rows {
		r.Samples = append(r.Samples, sample{round, peer, row, m})
	}
}

// byRound returns a metric of a peer in a row, by round.
func (r *results) byRound(row, peer, metric string) map[int]float64 {
	found := map[int]float64{}
	for _, s := range r.Samples {
		if v, ok := s.Metrics[metric]; ok && s.Row == row && s.Peer == peer {
			found[s.Round] = v
		}
	}
	return found
}

// median returns the median over all rounds of a metric.
func (r *results) median(row, peer, metric string) (v float64, ok bool) {
	of := r.byRound(row, peer, metric)
	values := make([]float64, 0, len(of))
	for _, v := range of {
		values = append(values, v)
	}
	return median(values), len(values) > 0
}

// median returns the middle one of some numbers, or 0 of none.
func median(numbers []float64) float64 {
	if len(numbers) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(numbers))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// ratio returns the median of the ratios that two metrics have in each round, because what disturbs a round
// disturbs both. Without a round in common it is the ratio of the medians.
func (r *results) ratio(row, peer, metric, otherRow, otherPeer, otherMetric string) (v float64, ok bool) {
	ours, theirs := r.byRound(row, peer, metric), r.byRound(otherRow, otherPeer, otherMetric)
	if len(ours) == 0 || len(theirs) == 0 {
		return 0, false
	}
	var ratios []float64
	for round, v := range ours {
		if by := theirs[round]; by != 0 {
			ratios = append(ratios, v/by)
		}
	}
	if len(ratios) == 0 {
		x, _ := r.median(row, peer, metric)
		y, _ := r.median(otherRow, otherPeer, otherMetric)
		return x / y, y != 0
	}
	return median(ratios), true
}

// peers returns the names of all peers that have samples, in the order of the results.
func (r *results) peers() (names []string) {
	has := func(name string) bool {
		return slices.ContainsFunc(r.Samples, func(s sample) bool { return s.Peer == name })
	}
	for _, p := range sortedProducts() {
		if has(p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

func (r *results) save(path string) error {
	out, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(out, '\n'), 0o644)
}

// loadResults reads what runs have saved. Of several, each has to be of a machine and a build like those of the others.
func loadResults(paths []string) (*results, error) {
	var all *results
	for _, path := range paths {
		in, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		r := &results{}
		if err := json.Unmarshal(in, r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if all == nil {
			all = r
			continue
		}
		if err := all.join(r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return all, nil
}

// join adds what another run measured.
func (r *results) join(other *results) error {
	ours, theirs := r.Facts, other.Facts
	ours.Date, theirs.Date = "", ""
	if !reflect.DeepEqual(ours, theirs) {
		return errors.New("the results are of another machine or of other versions")
	}
	sizes, theirSizes := r.Scale, other.Scale
	sizes.Growth, theirSizes.Growth = nil, nil
	sizes.Time, theirSizes.Time = 0, 0
	if !reflect.DeepEqual(sizes, theirSizes) || r.Quick != other.Quick {
		return errors.New("the results are of other sizes")
	}
	r.Rounds, r.Heavy = max(r.Rounds, other.Rounds), max(r.Heavy, other.Heavy)
	r.Scale.Growth = slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.Scale.Growth, other.Scale.Growth))))
	r.Samples = append(r.Samples, other.Samples...)
	r.Failed = append(r.Failed, other.Failed...)
	return nil
}
