package powerloss_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepcache/keepcache"
)

// bounds say how far each writer's operations may be there.
type bounds struct {
	least, most []int
	loose       []int    // of operations before this one nothing has to be there: the file that had them was damaged since
	damaged     [][]byte // what the file had each time that it was damaged
	after       bool     // what an opener wrote has to be there
}

// ledger follows the marks of a run.
type ledger struct {
	run     *run
	tried   []int
	acks    [][]ack // of each writer, in order
	flushes map[int][]int
	durable []int
	loose   []int
	damaged [][]byte
}

type ack struct {
	n  int
	at time.Time
}

func newLedger(run *run) *ledger {
	n := len(run.writers)
	return &ledger{run: run, tried: make([]int, n), acks: make([][]ack, n), flushes: map[int][]int{},
		durable: make([]int, n), loose: make([]int, n)}
}

func (l *ledger) happened(v any, at time.Time) {
	switch v := v.(type) {
	case tried:
		l.tried[v.writer] = v.n
	case acked:
		l.acks[v.writer] = append(l.acks[v.writer], ack{v.n, at})
	case flushes:
		had := make([]int, len(l.acks))
		for w, acks := range l.acks {
			if len(acks) > 0 {
				had[w] = acks[len(acks)-1].n
			}
		}
		l.flushes[v.n] = had
	case damaged:
		l.damaged = append(l.damaged, v.content)
		copy(l.loose, v.first)
		copy(l.tried, v.first)
	case flushed:
		for w, n := range l.flushes[v.n] {
			l.durable[w] = max(l.durable[w], n)
		}
	}
}

func (l *ledger) bounds(now time.Time) bounds {
	b := bounds{least: slices.Clone(l.durable), most: slices.Clone(l.tried), loose: slices.Clone(l.loose),
		damaged: l.damaged}
	for w, acks := range l.acks {
		for _, a := range acks {
			if l.run.options.Sync == keepcache.SyncAlways || now.Sub(a.at) > l.run.options.SyncInterval+syncSlack {
				b.least[w] = max(b.least[w], a.n)
			}
		}
	}
	return b
}

// compare requires of each writer that its buckets are as they were after one of the numbers of operations that are
// allowed.
func (x *explorer) compare(run *run, b bounds, db *keepcache.DB) error {
	sums := make([]uint64, len(run.writers))
	there := make([]map[string]map[string]entry, len(run.writers))
	names, err := db.Buckets()
	if err != nil {
		return err
	}
	for _, name := range names {
		var w int
		var letter rune
		if n, _ := fmt.Sscanf(name, "w%d%c", &w, &letter); n != 2 || w >= len(run.writers) {
			if name == "after" {
				continue
			}
			return fmt.Errorf("a bucket %q was never made", name)
		}
		if there[w] == nil {
			there[w] = map[string]map[string]entry{}
		}
		there[w][name] = map[string]entry{}
		for e, err := range db.Bucket(name).All() {
			if err != nil {
				return err
			}
			var v any
			if err := e.Decode(&v); err != nil {
				return err
			}
			is := entry{value: fmt.Sprint(v)}
			if !e.ExpiresAt.IsZero() {
				is.year = e.ExpiresAt.UTC().Year()
			}
			there[w][name][e.Key] = is
			sums[w] ^= digestOf(name, e.Key, is)
		}
	}
	for w, writer := range run.writers {
		at := slices.Index(writer.digest[b.least[w]:b.most[w]+1], sums[w])
		if at >= 0 {
			if at > 0 && run.options.Sync == keepcache.SyncAlways {
				x.Unacked++
			}
			continue
		}
		if writer.fits(there[w], b, w) {
			continue
		}
		older := slices.Index(writer.digest[:b.least[w]], sums[w])
		how := "what is there was there after no operation"
		if older >= 0 {
			how = fmt.Sprintf("what is there was there after operation %d", older)
		}
		how += differences(there[w], writer.states[b.most[w]])
		return fmt.Errorf("%w: writer %d, operations %d to %d may be there, %s (%v, interval %v, journal %d): %s; around: %s", errLost, w,
			b.least[w], b.most[w], how, run.options.Sync, run.options.SyncInterval, run.options.JournalBytes, brief(there[w]),
			strings.Join(writer.log[max(0, b.least[w]-3):b.most[w]], "; "))
	}
	return nil
}

// fits reports whether what is there was there after one of the operations that may be there, all of it but what was
// lost with a damaged file.
func (w *writer) fits(there map[string]map[string]entry, b bounds, number int) bool {
	for n := b.most[number]; n >= b.least[number]; n-- {
		if missing, ok := within(there, w.states[n]); ok && (n < b.loose[number] || !missing) {
			return true
		}
	}
	return false
}

// within reports whether all that is there is in state, and whether anything is missing that a damaged file has not
// taken away.
func within(there, state map[string]map[string]entry) (missing, ok bool) {
	for name, b := range there {
		for key, e := range b {
			if is, ok := state[name][key]; !ok || is.value != e.value || is.year != e.year {
				return false, false
			}
		}
	}
	for name, b := range state {
		for key, e := range b {
			if _, ok := there[name][key]; !ok && !e.unsure {
				missing = true
			}
		}
	}
	return missing, true
}

func brief(there map[string]map[string]entry) string {
	var text strings.Builder
	for name, b := range there {
		for key, e := range b {
			fmt.Fprintf(&text, "%s/%s=%.8s.. ", name, key, e.value)
		}
	}
	return text.String()
}

// differences lists what is there and is not in state.
func differences(there, state map[string]map[string]entry) (text string) {
	for name, b := range there {
		for key, e := range b {
			if is, ok := state[name][key]; !ok || is.value != e.value || is.year != e.year {
				text += fmt.Sprintf(", %s/%s is %.8q and was %.8q", name, key, e.value, is.value)
			}
		}
	}
	return text
}
