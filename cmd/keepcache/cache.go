package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/jsontext"
)

// cache is what the commands see of a cache. There are two: a file that this process opens, and a program that has
// it open and answers on its socket.
type cache interface {
	// find returns an entry, or an noError. The value comes with it if it is asked for.
	find(bucket, key string, values bool) (*entry, error)
	exists(bucket, key string) (bool, error)
	// list ranges over the entries of a bucket in the order of their keys. A damaged entry is an ErrCorrupt beside an
	// entry with its key, where that is known; the range goes on behind it.
	list(q listing) iter.Seq2[*entry, error]
	// buckets returns the names of all buckets in their order.
	buckets() ([]string, error)
	stats() (keepcache.Stats, error)

	// set stores a value. An entry that is there keeps its tags if w has none.
	set(bucket string, w write) error
	// add stores a value if the key is absent, and reports whether it was.
	add(bucket string, w write) (bool, error)
	// increment adds to an integer and returns the sum. The lifetime is that of an entry that it makes.
	increment(bucket, key string, by int64, ttl time.Duration) (int64, error)
	// restore stores an entry as it was exported. It reports false if it is gone by now.
	restore(bucket string, e keepcache.Entry, v value) (bool, error)
	// together is how many calls of restore may run at the same time.
	together() int
	delete(bucket, key string) (bool, error)
	touch(bucket, key string, ttl time.Duration) (bool, error)
	// invalidate makes all entries with one of the tags absent, all or nothing.
	invalidate(tags []string) error
	// clear removes the entries of a bucket, or those that begin with prefix, or the bucket too.
	clear(ctx context.Context, bucket, prefix string, drop bool) (removed int, err error)
	sweep(ctx context.Context) (removed int, err error)
	compact(ctx context.Context) (before, after int64, err error)
	backup(ctx context.Context, w io.Writer) error
}

// listing says which entries to list.
type listing struct {
	keepcache.ScanOptions
	bucket, glob string
	limit        int // of what is wanted in all; 0: no limit
}

// entry is an entry with its value, wherever it comes from.
type entry struct {
	keepcache.Entry
	wired    *jsontext.Node // the value, where it came over the wire
	redacted bool           // the value is not what is stored
	partial  bool           // the ETag is not shown
}

// node returns the value.
func (e *entry) node() (jsontext.Node, error) {
	if e.wired != nil {
		return *e.wired, nil
	}
	return jsontext.Of(e.Entry)
}

var errNoBytes = errors.New("the value is not bytes")

// bytes returns the value as bytes, as GetBytes does.
func (e *entry) bytes() (raw []byte, err error) {
	if e.wired == nil {
		err = e.Decode(&raw)
		return raw, err
	}
	if e.wired.Kind != '"' {
		return nil, errNoBytes
	}
	return base64.StdEncoding.DecodeString(e.wired.Text)
}

// value is a value to be stored: JSON, or bytes.
type value struct {
	text     []byte // JSON
	literals []int  // places in it, see jsontext.Literals
	raw      []byte // where text is nil
}

// write is a value to be stored under a key.
type write struct {
	key   string
	value value
	ttl   time.Duration
	tags  []string
}

func textValue(s string) value {
	text, _ := json.Marshal(s) // of a string it never fails
	return value{text: text}
}

// stored returns what to give to Set.
func (v *value) stored() (any, error) {
	if v.text == nil {
		return v.raw, nil
	}
	n, err := jsontext.Parse(v.text)
	if err != nil {
		return nil, err
	}
	return n.Stored(v.text, &jsontext.Literals{Places: v.literals}), nil
}

// known refuses a bucket that the cache does not have, except for the default one, which every cache may
// be said to have.
func known(c cache, bucket string) error {
	if bucket == keepcache.DefaultBucket {
		return nil
	}
	names, err := c.buckets()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == bucket {
			return nil
		}
	}
	return absentBucket(bucket)
}

// damagedEntry is the error of a key whose entry is damaged.
func damagedEntry(bucket, key string) error {
	return fmt.Errorf("the entry of %s in bucket %s is damaged (keepcache verify has the details): %w",
		display.Name(key), display.Name(bucket), keepcache.ErrCorrupt)
}
