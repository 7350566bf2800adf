package keepcache

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keepcache/keepcache/internal/contend"
	"github.com/keepcache/keepcache/internal/engine"
)

const (
	// conflictTries bounds how often an operation starts over because others changed its key between its look
	// and its write. Each conflict means that another writer got through.
	conflictTries = 10_000

	// queueAfter is the number of conflicts after which callers queue for a key, so that of n callers one runs
	// and not n-1 in vain. Up to there a queue would cost more than it saves.
	queueAfter = 3

	// suspectAfter is how often the function of an Update runs, each time because its key has changed meanwhile, before
	// it is suspected of changing the key itself. Where many change a key they take turns long before that.
	suspectAfter = 8

	// backoffAfter is the number of conflicts after which there is a pause before the next look, of a random time up to
	// backoffMost. Where memory is so small that it has one shard, a writer of other keys that takes its lock again and again can
	// come between each look and each write: the two keep step, and only chance ends that.
	backoffAfter = 64
	backoffMost  = 200 * time.Microsecond
)

// modify looks at a key, lets decide draft a write on what it found, and writes that if the key is still as it was;
// otherwise it starts over, unless it is decide itself that changes the key each time. A nil write is the decision to
// write nothing, which is as durable when modify returns as a write. decide runs anew only if what it decided on has
// changed, and outside of all locks and transactions.
func (b *Bucket) modify(key string, decide func(engine.Reading) (*engine.Write, error)) error {
	var before engine.Reading
	var d *engine.Write
	var leave func()
	var self *contend.Suspect
	runs := 0 // of decide
	for try := range conflictTries {
		if try >= queueAfter && leave == nil {
			if leave = b.db.turns.Enter(b.at.Name, key); leave != nil {
				defer leave()
			}
		}
		if try >= backoffAfter {
			time.Sleep(rand.N(backoffMost))
		}
		r, err := b.read(key)
		if err != nil {
			return err
		}
		if d == nil || !r.Same(&before) {
			if runs++; runs > suspectAfter && self == nil {
				self = b.db.suspects.Add(b.at.Name, key)
				defer b.db.suspects.Remove(self)
			}
			if d, err = decide(r); err != nil {
				return err
			}
			if d == nil {
				return b.db.engine.Observed()
			}
			if self != nil && b.db.suspects.Convicts(self) {
				return errOwnWrites
			}
		}
		before = r
		d.Expect(&r)
		if err = b.write(d); err != engine.ErrMissed {
			return err
		}
	}
	return ErrContended
}

// errOwnWrites is ErrContended of an Update that contends with itself.
var errOwnWrites = fmt.Errorf("%w: the function that was given to the call writes the key itself, so that its result is always late", ErrContended)
