package keepcache

import (
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/format"
)

// Batch gathers writes to any number of buckets, which DB.Apply then makes all together or not at all. The zero
// value is an empty batch. Of several writes to one key the last one counts. A Batch is for one goroutine.
type Batch struct {
	writes map[entryID]batched
	err    error // of the first write that cannot be made
}

// entryID names an entry.
type entryID struct{ bucket, key string }

type batched struct {
	bucket *Bucket
	write  *engine.Write
}

// Set adds what Bucket.Set does. The value is encoded now, and the lifetime begins now. If the value cannot be stored,
// Apply says so.
func (t *Batch) Set(b *Bucket, key string, value any, ttl time.Duration) {
	d, err := b.prepare(key, value, ttl)
	t.add(b, key, d, b.fail("set", key, err))
}

// SetUntil adds what Bucket.SetUntil does.
func (t *Batch) SetUntil(b *Bucket, key string, value any, until time.Time) {
	d, err := b.prepareUntil(key, value, until)
	t.add(b, key, d, b.fail("set", key, err))
}

// Delete adds the removal of key, which need not be there. Apply does not look whether it was, so the removal counts
// neither in Stats.Deletes nor as an EventDelete.
func (t *Batch) Delete(b *Bucket, key string) {
	var err error
	switch {
	case !format.ValidName(b.at.Name):
		err = ErrInvalidName
	case !format.ValidKey(key):
		err = ErrInvalidKey
	}
	t.add(b, key, &engine.Write{Key: key}, b.fail("delete", key, err))
}

func (t *Batch) add(b *Bucket, key string, d *engine.Write, err error) {
	if err != nil {
		if t.err == nil {
			t.err = err
		}
		return
	}
	if t.writes == nil {
		t.writes = make(map[entryID]batched)
	}
	t.writes[entryID{b.at.Name, key}] = batched{b, d}
}

// Len returns how many keys the batch writes.
func (t *Batch) Len() int { return len(t.writes) }

// Apply makes the writes of a batch, all of them or none: a crash leaves no part of them without the rest. Other
// goroutines may see part of them for an instant. If a write cannot be made, the error says which, and nothing was
// changed; ErrOtherDB says that a bucket is of another DB. Whatever the outcome, the batch is empty afterwards and can
// be used again. An empty batch does nothing.
func (db *DB) Apply(t *Batch) error {
	writes, err := t.writes, t.err
	*t = Batch{}
	if err != nil {
		return err
	}
	if err = db.writable(); err == nil {
		err = db.apply(writes)
	}
	if err != nil {
		return db.fail("apply batch", "", err)
	}
	return nil
}

func (db *DB) apply(writes map[entryID]batched) error {
	if err := db.applyWrites(writes); err != nil {
		return err
	}
	for at, w := range writes { // outside of the buckets' turns: who is told may write
		if w.write.Stored != nil {
			db.counts.sets.Add(1)
			w.bucket.note(EventSet, at.key) // not the write's, which would keep its record alive
		}
	}
	return nil
}

func (db *DB) applyWrites(writes map[entryID]batched) error {
	buckets := make(map[string][]*engine.Write)
	for _, w := range writes {
		if w.bucket.db != db {
			return ErrOtherDB
		}
		buckets[w.bucket.at.Name] = append(buckets[w.bucket.at.Name], w.write)
	}
	return db.engine.WriteAll(buckets)
}
