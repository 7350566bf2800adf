package keepcache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Bucket is a handle of one namespace of a cache. Handles are cheap, and any number of them may stand for
// the same bucket. All methods may be called from any goroutine.
//
// Keys are any 1 to MaxKeyBytes bytes. A lifetime of 0 is the bucket's default, NoExpiry is none, and a
// negative one gives ErrInvalidTTL. Where an error is returned nothing was changed, unless it says that
// the outcome is unknown.
type Bucket struct {
	db         *DB
	name       string
	defaultTTL time.Duration
	shared     atomic.Pointer[namespace] // nil until the bucket is known to have been written to
}

// Name returns the bucket's name.
func (b *Bucket) Name() string { return b.name }

// Set stores value under key for the given lifetime. It replaces the entry that was there, lifetime
// included. The value is anything that encoding/json can marshal; ErrUnsupportedValue and ErrTooLarge say
// that it cannot be stored.
func (b *Bucket) Set(key string, value any, ttl time.Duration) error {
	c, err := b.prepare(key, value, ttl)
	if err == nil {
		_, err = b.write(c)
	}
	if err != nil {
		return b.fail("set", key, err)
	}
	b.db.counts.sets.Add(1)
	return nil
}

// Get reads the value of key into dst, a non-nil pointer, with the rules of json.Unmarshal, except that an
// integer read into an any is an int64 (a uint64 above its range, a json.Number above that one's), and
// that a float stays a float64. It reports false, and leaves dst alone, if the key is absent or expired;
// a stored null is found. A value that does not fit dst is an error with found = true.
func (b *Bucket) Get(key string, dst any) (found bool, err error) {
	r, err := b.read(key)
	b.db.counts.get(r.live && err == nil)
	if err != nil || !r.live {
		return false, b.fail("get", key, err)
	}
	if err := decodeValue(r.value, dst); err != nil {
		return true, b.fail("get", key, err)
	}
	return true, nil
}

// SetBytes stores value as it is. It is Set for a []byte, and reads back as base64 text into an any. A nil
// slice is stored as empty, not as null.
func (b *Bucket) SetBytes(key string, value []byte, ttl time.Duration) error {
	if value == nil {
		value = []byte{}
	}
	return b.Set(key, value, ttl)
}

// GetBytes returns what SetBytes stored, in a slice of the caller's own. Other values are read as Get
// reads them into a []byte.
func (b *Bucket) GetBytes(key string) (value []byte, found bool, err error) {
	found, err = b.Get(key, &value)
	return value, found, err
}

// Add stores value only if key is absent or expired, and reports whether it did. Of many callers that add
// one key at the same time exactly one succeeds.
func (b *Bucket) Add(key string, value any, ttl time.Duration) (added bool, err error) {
	c, err := b.prepare(key, value, ttl)
	if err != nil {
		return false, b.fail("add", key, err)
	}
	for range conflictTries {
		r, err := b.read(key)
		if err == nil {
			err = r.damage
		}
		if err != nil || r.live {
			return false, b.fail("add", key, err)
		}
		// An expired entry that the sweeper takes away meanwhile is a conflict too: the next look settles it.
		c.expects, c.missed = expectation{set: true, revision: r.header.revision}, false
		added, err := b.write(c)
		if err != nil {
			return false, b.fail("add", key, err)
		}
		if added {
			b.db.counts.sets.Add(1)
			return true, nil
		}
	}
	return false, b.fail("add", key, errContended)
}

// Delete removes key and reports whether it was there. The removal of an absent key is no error.
func (b *Bucket) Delete(key string) (found bool, err error) {
	if err := b.db.writable(); err != nil {
		return false, b.fail("delete", key, err)
	}
	for range conflictTries {
		r, err := b.read(key)
		if err != nil {
			return false, b.fail("delete", key, err)
		}
		if r.header.revision == 0 && r.damage == nil {
			return false, nil
		}
		expects := expectation{set: r.damage == nil, revision: r.header.revision}
		deleted, err := b.write(&change{key: []byte(key), expects: expects})
		if err != nil {
			return false, b.fail("delete", key, err)
		}
		if deleted {
			b.db.counts.deletes.Add(1)
			return r.live, nil
		}
	}
	return false, b.fail("delete", key, errContended)
}

// Exists reports whether key is present and not expired.
func (b *Bucket) Exists(key string) (bool, error) {
	r, err := b.read(key)
	return r.live && err == nil, b.fail("exists", key, err)
}

// TTL returns how long the entry of key has to live, or NoExpiry. It reports false if the key is absent.
func (b *Bucket) TTL(key string) (ttl time.Duration, found bool, err error) {
	r, err := b.read(key)
	if err != nil || !r.live {
		return 0, false, b.fail("ttl", key, err)
	}
	return remaining(r.now, r.header.freshUntil), true, nil
}

// Touch gives a live entry a new lifetime, from now on, and reports true. On an absent or expired key it
// reports false and creates nothing.
func (b *Bucket) Touch(key string, ttl time.Duration) (found bool, err error) {
	if err := b.db.writable(); err != nil {
		return false, b.fail("touch", key, err)
	}
	if ttl, err = lifetime(ttl, b.defaultTTL); err != nil {
		return false, b.fail("touch", key, err)
	}
	for range conflictTries {
		r, err := b.read(key)
		if err == nil {
			err = r.damage
		}
		if err != nil || !r.live {
			return false, b.fail("touch", key, err)
		}
		h := r.header
		h.freshUntil = deadline(r.now, ttl)
		h.goneAt = h.freshUntil
		rec := appendTrailer(append(appendHeader(make([]byte, 0, recordHeader+len(r.value)+recordTrailer), h), r.value...))
		touched, err := b.write(&change{
			key: []byte(key), record: rec, goneAt: h.goneAt, expects: expectation{set: true, revision: r.header.revision},
		})
		if touched || err != nil {
			return touched, b.fail("touch", key, err)
		}
	}
	return false, b.fail("touch", key, errContended)
}

// Stat returns what is known of the entry of key. It reports false if the key is absent or expired.
func (b *Bucket) Stat(key string) (entry Entry, found bool, err error) {
	r, err := b.read(key)
	if err != nil || !r.live {
		return Entry{}, false, b.fail("stat", key, err)
	}
	return newEntry(key, r.header, r.value), true, nil
}

// Clear removes all entries of the bucket. It returns at once, whatever their number: they are absent from
// then on, and the sweeper frees their room.
func (b *Bucket) Clear(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		_, err = b.db.replaceID(b.name, b.db.nextID)
	}
	return b.fail("clear", "", err)
}

// conflictTries bounds how often an operation starts over because others changed its key between its look
// and its write. Each conflict means that another writer got through.
const conflictTries = 1000

var errContended = errors.New("too many writers change this key at the same time")

// reading is what a look at a key found.
type reading struct {
	header           // zero if the file has no entry
	value  []byte    // the reader's own
	live   bool      // there is an entry, and it is not expired
	damage error     // why what is stored cannot be read; then there is no header
	now    time.Time // of the look
}

// read looks at a key. A damaged entry reads as absent, with the damage beside it.
func (b *Bucket) read(key string) (reading, error) {
	r := reading{now: time.Now()}
	switch {
	case b.db.closed.Load():
		return r, ErrClosed
	case !validName(b.name):
		return r, ErrInvalidName
	case !validKey(key):
		return r, ErrInvalidKey
	}
	ns := b.namespace()
	if ns == nil || ns.id.Load() == 0 {
		return r, nil
	}
	k := []byte(key)
	rec, err := b.db.store.get(ns.id.Load(), k)
	if err != nil || rec == nil {
		return r, err
	}
	h, value, err := openStored(rec, ns.sum, k)
	if err != nil {
		b.db.counts.damaged.Add(1)
		r.damage = err
		return r, nil
	}
	r.header, r.value = h, value
	r.live = millis(r.now) < h.freshUntil
	return r, nil
}

// openStored opens a record that comes from the file and proves its value. The error is ErrCorrupt.
func openStored(rec []byte, sum uint32, key []byte) (header, []byte, error) {
	h, value, err := openRecord(rec, sum, key)
	if err != nil {
		return header{}, nil, errors.Join(ErrCorrupt, err)
	}
	if err := checkValue(value); err != nil {
		return header{}, nil, err
	}
	return h, value, nil
}

// prepare checks the arguments of a write and encodes its value.
func (b *Bucket) prepare(key string, value any, ttl time.Duration) (*change, error) {
	if err := b.db.writable(); err != nil {
		return nil, err
	}
	switch {
	case !validName(b.name):
		return nil, ErrInvalidName
	case !validKey(key):
		return nil, ErrInvalidKey
	}
	ttl, err := lifetime(ttl, b.defaultTTL)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	h := header{written: millis(now), freshUntil: deadline(now, ttl)}
	h.goneAt = h.freshUntil
	rec := appendHeader(make([]byte, 0, 128), h)
	if rec, err = appendValue(rec, value, b.db.options.MaxValueBytes); err != nil {
		return nil, err
	}
	return &change{key: []byte(key), record: appendTrailer(rec), goneAt: h.goneAt}, nil
}

// write commits c under the bucket's current id, and reports whether its expectation was met. The first
// write to a bucket brings the bucket itself into being, in the same transaction.
func (b *Bucket) write(c *change) (written bool, err error) {
	ns := b.namespace()
	if ns == nil {
		ns = b.db.ensureNamespace(b.name)
	}
	c.sum = ns.sum
	r := &request{changes: []*change{c}}

	ns.turn.RLock()
	if c.id = ns.id.Load(); c.id != 0 {
		defer ns.turn.RUnlock()
		err = b.db.commit.do(r)
		return err == nil && !c.missed, err
	}
	ns.turn.RUnlock()
	if c.record == nil {
		return !c.expects.set || c.expects.revision == 0, nil
	}
	ns.turn.Lock()
	defer ns.turn.Unlock()
	if c.id = ns.id.Load(); c.id == 0 {
		c.id = b.db.nextID()
		r.names = []naming{{b.name, c.id}}
	}
	if err = b.db.commit.do(r); err != nil {
		return false, err
	}
	ns.id.Store(c.id)
	return !c.missed, nil
}

// namespace returns what the handles of this bucket share, or nil if the bucket was never written to.
func (b *Bucket) namespace() *namespace {
	if ns := b.shared.Load(); ns != nil {
		return ns
	}
	ns := b.db.namespace(b.name)
	if ns != nil {
		b.shared.Store(ns)
	}
	return ns
}

// fail dresses err, if there is one, as the error of an operation on key.
func (b *Bucket) fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Path: b.db.path, Bucket: b.name, Key: key, Err: err}
}
