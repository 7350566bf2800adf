package keepcache

import (
	"context"
	"errors"
	"sync"
	"time"
	"unsafe"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
	"github.com/keepcache/keepcache/internal/jsonpack"
)

// Bucket is a handle of one namespace of a cache. Handles are cheap, and any number of them may stand for the same
// bucket. All methods may be called from any goroutine.
//
// Keys are any 1 to MaxKeyBytes bytes. A lifetime of 0 is the bucket's default, NoExpiry is none, and a negative one
// gives ErrInvalidTTL. If a call returns an error, it has changed nothing, unless the error is ErrUnknownOutcome. Other
// goroutines see a value that is larger than the journal while it is being written to the file; if the disk fails then,
// the value is taken back.
type Bucket struct {
	db         *DB
	at         engine.Ref
	defaultTTL time.Duration
	sliding    bool
	tags       format.Tags // of what is written through this handle
	tagsErr    error       // why it cannot have its tags
}

// Name returns the bucket's name.
func (b *Bucket) Name() string { return b.at.Name }

// DefaultTTL returns the lifetime that 0 stands for in this bucket, NoExpiry for none.
func (b *Bucket) DefaultTTL() time.Duration { return b.defaultTTL }

// Set stores value under key for the given lifetime. It replaces the entry that was there, lifetime
// included. The value is anything that encoding/json can marshal; ErrUnsupportedValue and ErrTooLarge say
// that it cannot be stored.
func (b *Bucket) Set(key string, value any, ttl time.Duration) error {
	rec, h, err := b.begin(key, ttl)
	if err == nil {
		rec.buf, err = appendValue(rec.buf, value, b.db.options.MaxValueBytes)
	}
	return b.set("set", key, rec, h, err)
}

// Get reads the value of key into dst, a non-nil pointer, as json.Unmarshal does, with two exceptions: an integer read
// into an any is an int64 (a uint64 above its range, a json.Number above that), and a float stays a float64. It returns
// false, and leaves dst alone, if the key is absent or expired. A stored null is found. If the value does not fit dst,
// it returns true and ErrMismatch.
func (b *Bucket) Get(key string, dst any) (found bool, err error) {
	begun := b.db.counts.beginRead()
	r, err := b.read(key)
	b.counted(key, &r)
	b.db.counts.reads.end(begun)
	if err != nil || !r.Live {
		return false, b.fail("get", key, err)
	}
	b.slid(key, &r)
	if err := decodeValue(r.Value, dst); err != nil {
		return true, b.fail("get", key, err)
	}
	return true, nil
}

// SetBytes stores value as it is. It is Set for a []byte, and reads back as base64 text into an any. A nil
// slice is stored as empty, not as null.
func (b *Bucket) SetBytes(key string, value []byte, ttl time.Duration) error {
	rec, h, err := b.begin(key, ttl)
	if err == nil {
		rec.buf, err = appendBytes(rec.buf, value, b.db.options.MaxValueBytes)
	}
	return b.set("set", key, rec, h, err)
}

// set writes the record that was begun and filled, unless that failed.
func (b *Bucket) set(op, key string, rec *frame, h format.Header, err error) error {
	if err == nil {
		begun := b.db.counts.beginWrite()
		d := rec.finish(key, h)
		err = b.write(&d)
		b.db.counts.writes.end(begun)
	}
	if err != nil {
		return b.fail(op, key, err)
	}
	b.countSet(key)
	return nil
}

// countSet counts and reports a value that was written.
func (b *Bucket) countSet(key string) {
	b.db.counts.sets.Add(1)
	b.note(EventSet, key)
}

// SetEntry stores value under key for the given lifetime, as Set does, and returns the entry as it was written. Its
// Revision serves for CompareAndSwap.
func (b *Bucket) SetEntry(key string, value any, ttl time.Duration) (Entry, error) {
	d, err := b.prepare(key, value, ttl)
	if err == nil {
		err = b.write(d)
	}
	if err != nil {
		return Entry{}, b.fail("set", key, err)
	}
	b.countSet(key)
	return entryWritten(key, d), nil
}

// GetEntry returns the entry of key, whose value Entry.Decode reads. It is a read of the value, as Get is. It reports
// false if the key is absent or expired.
func (b *Bucket) GetEntry(key string) (entry Entry, found bool, err error) {
	begun := b.db.counts.beginRead()
	r, err := b.read(key)
	b.counted(key, &r)
	b.db.counts.reads.end(begun)
	if err != nil || !r.Live {
		return Entry{}, false, b.fail("get", key, err)
	}
	b.slid(key, &r)
	return entryOf(key, &r), true, nil
}

// GetBytes returns what SetBytes stored, in a slice of the caller's own. Other values are read as Get
// reads them into a []byte.
func (b *Bucket) GetBytes(key string) (value []byte, found bool, err error) {
	begun := b.db.counts.beginRead()
	r, err := b.read(key)
	b.counted(key, &r)
	b.db.counts.reads.end(begun)
	if err != nil || !r.Live {
		return nil, false, b.fail("get", key, err)
	}
	b.slid(key, &r)
	if raw, ok := jsonpack.Bytes(r.Value); ok {
		if r.Own {
			return raw[:len(raw):len(raw)], true, nil
		}
		return append(make([]byte, 0, len(raw)), raw...), true, nil
	}
	var decoded []byte // apart from the result, which would escape to the heap in every case
	err = decodeValue(r.Value, &decoded)
	return decoded, true, b.fail("get", key, err)
}

// Add stores value only if key is absent or expired, and reports whether it did. Of many callers that add
// one key at the same time exactly one succeeds.
func (b *Bucket) Add(key string, value any, ttl time.Duration) (added bool, err error) {
	d, err := b.prepare(key, value, ttl)
	return b.add(key, d, err)
}

// add is Add for a write that was prepared, unless preparing it ended in err.
func (b *Bucket) add(key string, d *engine.Write, err error) (added bool, _ error) {
	if err == nil {
		_, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			if added = !r.Live; !added || r.Damage != nil {
				return nil, r.Damage
			}
			return d, nil
		})
	}
	if err != nil {
		return false, b.fail("add", key, err)
	}
	if added {
		b.countSet(key)
	}
	return added, nil
}

// Delete removes key and reports whether it was there. Removing an absent key is no error. While the file is
// unavailable, Delete removes the key all the same, and reports only what memory knows.
func (b *Bucket) Delete(key string) (found bool, err error) {
	if err = b.db.writable(); err == nil {
		b.voidFlights(key)
		_, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			if found = r.Live; !r.IsStored() {
				return nil, nil
			}
			return &engine.Write{Key: key}, nil
		})
	}
	if err != nil {
		return false, b.fail("delete", key, err)
	}
	if found {
		b.db.counts.deletes.Add(1)
		b.note(EventDelete, key)
	}
	return found, nil
}

// Exists reports whether key is present and not expired.
func (b *Bucket) Exists(key string) (bool, error) {
	r, err := b.read(key)
	if err == nil {
		b.slid(key, &r)
	}
	return r.Live && err == nil, b.fail("exists", key, err)
}

// TTL returns how long the entry of key has to live, or NoExpiry. It reports false if the key is absent.
func (b *Bucket) TTL(key string) (ttl time.Duration, found bool, err error) {
	for range ttlTries {
		r, err := b.read(key)
		if err != nil || !r.Live {
			return 0, false, b.fail("ttl", key, err)
		}
		if ttl = format.Remaining(b.db.engine.Now(), r.Header.ExpiresAt); ttl > 0 {
			break
		}
		ttl = 1 // it was live when it was looked at; whether it has expired since, another look says
	}
	return ttl, true, nil
}

// ttlTries is how often TTL looks at an entry that reaches its deadline, and whose life is prolonged, again and again.
const ttlTries = 3

// Touch gives a live entry a new lifetime, from now on, and returns true. If the key is absent or expired, it returns
// false and creates nothing. The stale window after the lifetime keeps its length. A damaged entry is ErrCorrupt.
func (b *Bucket) Touch(key string, ttl time.Duration) (found bool, err error) {
	if err = b.db.writable(); err == nil {
		ttl, err = lifetime(ttl, b.defaultTTL)
	}
	return b.touch(key, func() int64 { return format.Deadline(b.db.engine.Now(), ttl) }, b.slidingMillis(ttl), err)
}

// TouchUntil is Touch with a point in time. See SetUntil.
func (b *Bucket) TouchUntil(key string, until time.Time) (found bool, err error) {
	deadline := format.DeadlineAt(until)
	if err = b.db.writable(); err == nil && deadline <= format.Millis(b.db.engine.Now()) {
		err = errDeadlinePassed
	}
	return b.touch(key, func() int64 { return deadline }, 0, err)
}

// touch is Touch for arguments that were checked, with err as the result. sliding is the lifetime that reads give the
// entry anew, in milliseconds; 0 if they do not.
func (b *Bucket) touch(key string, deadline func() int64, sliding int64, err error) (found bool, _ error) {
	if err == nil {
		_, err = b.modify(key, func(r engine.Reading) (*engine.Write, error) {
			if found = r.Live; !found || r.Damage != nil {
				return nil, r.Damage
			}
			h, t := r.Header, r.ParseOptions()
			t.AsOf = t.Since(h.Revision)
			h.ExpiresAt = deadline()
			h.StaleUntil = format.Prolong(h.ExpiresAt, format.Between(r.Header.ExpiresAt, r.Header.StaleUntil))
			t.RetryAt, t.Lifetime = 0, sliding
			return &engine.Write{Key: key, Stored: format.Frame(h, &t, r.Value), Header: h}, nil
		})
	}
	if err != nil {
		return false, b.fail("touch", key, err)
	}
	return found, nil
}

// Stat returns the entry of key without using it: it counts neither as a read nor as a use, and brings nothing into
// memory. It returns false if the key is absent or expired; an entry that GetOrLoad may still serve stale is there.
// Unlike Get, it reports damage as ErrCorrupt, and a file that cannot be read as ErrUnavailable.
func (b *Bucket) Stat(key string) (entry Entry, found bool, err error) {
	if err = b.canRead(); err == nil && !format.ValidKey(key) {
		err = ErrInvalidKey
	}
	var r engine.Reading
	if err == nil {
		r, err = b.db.engine.Peek(&b.at, key, b.sliding)
	}
	if err == nil {
		err = r.Damage
	}
	if err != nil || !r.Held || r.Negative {
		return Entry{}, false, b.fail("stat", key, err)
	}
	return entryOf(key, &r), true, nil
}

// Clear removes all entries of the bucket. It returns at once, whatever their number: they are absent from
// then on, and the sweeper frees their room.
func (b *Bucket) Clear(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		_, err = b.db.replace(b.at.Name, false)
	}
	return b.fail("clear", "", err)
}

// prepare checks the arguments of a write and encodes its value.
func (b *Bucket) prepare(key string, value any, ttl time.Duration) (*engine.Write, error) {
	d := new(engine.Write)
	return d, b.prepareIn(d, key, value, ttl)
}

// prepareIn is prepare into a write that is there already.
func (b *Bucket) prepareIn(d *engine.Write, key string, value any, ttl time.Duration) error {
	rec, h, err := b.begin(key, ttl)
	if err == nil {
		rec.buf, err = appendValue(rec.buf, value, b.db.options.MaxValueBytes)
	}
	if err != nil {
		return err
	}
	*d = rec.finish(key, h)
	return nil
}

// canWrite checks what does not depend on the key: whether the bucket can be written to, and the lifetime, which it
// resolves.
func (b *Bucket) canWrite(ttl time.Duration) (time.Duration, error) {
	if err := b.db.writable(); err != nil {
		return 0, err
	}
	if !format.ValidName(b.at.Name) {
		return 0, ErrInvalidName
	}
	if b.tagsErr != nil {
		return 0, b.tagsErr
	}
	return lifetime(ttl, b.defaultTTL)
}

// canRead checks whether the bucket can be read.
func (b *Bucket) canRead() error {
	switch {
	case b.db.engine.Closed():
		return ErrClosed
	case !format.ValidName(b.at.Name):
		return ErrInvalidName
	}
	return nil
}

// begin checks the arguments of a write and starts its record, to which the caller appends the value.
func (b *Bucket) begin(key string, ttl time.Duration) (*frame, format.Header, error) {
	ttl, err := b.canWrite(ttl)
	if err == nil && !format.ValidKey(key) {
		err = ErrInvalidKey
	}
	if err != nil {
		return nil, format.Header{}, err
	}
	now := b.db.engine.Now()
	h := format.Header{WrittenAt: format.Millis(now), ExpiresAt: format.Deadline(now, ttl)}
	h.StaleUntil = h.ExpiresAt
	f := frameOf(key, h)
	if len(b.tags) > 0 || b.sliding {
		f.buf = format.AppendOptions(f.buf, &format.Options{Tags: b.tags, Lifetime: b.slidingMillis(ttl)})
	}
	return f, h, nil
}

// frame is a buffer in which key and record are built, as memory.Join has them. It is used again, so that a record
// takes no more memory than it needs, and building it none.
type frame struct{ buf []byte }

// frameOf starts the record of an entry.
func frameOf(key string, h format.Header) *frame {
	f := frames.Get().(*frame)
	f.buf = append(append(f.buf[:0], key...), make([]byte, format.RowSize)...)
	f.buf = format.AppendHeader(f.buf, h)
	return f
}

var frames = sync.Pool{New: func() any { return &frame{make([]byte, 0, 512)} }}

// finish returns the write of the record and lets go of the frame.
func (f *frame) finish(key string, h format.Header) engine.Write {
	const mostKept = 64 << 10
	both := format.AppendTrailer(f.buf)
	// What is large and fits its buffer keeps it: a second copy would be as large again.
	if f.buf = both; cap(both) <= mostKept || cap(both)-len(both) > len(both)/8 {
		both = append([]byte(nil), both...)
	}
	if cap(f.buf) <= mostKept {
		frames.Put(f)
	}
	return engine.Write{OwnKey: true, Header: h, Key: unsafe.String(&both[0], len(key)), Stored: both[len(key):]}
}

// read looks at a key. A damaged entry reads as absent, with the damage beside it.
func (b *Bucket) read(key string) (r engine.Reading, err error) {
	if local := b.db.engine.local; local != nil {
		err = local.ReadInto(&r, &b.at, key, b.sliding) // one call less, on the way of every read
	} else {
		err = b.readQuietly(&r, key)
	}
	if err == nil && r.Damage != nil && !errors.Is(r.Damage, ErrUnavailable) {
		b.damaged(key, r.Damage)
	}
	return r, err
}

// readQuietly is read, into an empty r, without a word of damage, for one for whom others wait.
func (b *Bucket) readQuietly(r *engine.Reading, key string) error {
	return b.db.engine.ReadInto(r, &b.at, key, b.sliding)
}

// damaged counts and tells that a read met a damaged entry.
func (b *Bucket) damaged(key string, err error) {
	b.db.counts.damaged.Add(1)
	b.db.events.tell(Event{Kind: EventCorrupt, Bucket: b.at.Name, Key: key, Err: err})
}

// write writes writes, all of them or nothing. It returns engine.ErrMissed if one of them depends on a reading that is
// no longer true.
func (b *Bucket) write(writes ...*engine.Write) error { return b.db.engine.Write(&b.at, writes...) }

// fail dresses err, if there is one, as the error of an operation on key.
func (b *Bucket) fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Path: b.db.path, Bucket: b.at.Name, Key: key, Err: err}
}
