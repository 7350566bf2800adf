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

// cache is a cache as the commands use it. There are two implementations: a file that this process opens, and a running
// program that has it open and serves it.
type cache interface {
	// find returns an entry, with its value if that is requested, or a noError.
	find(bucket, key string, values bool) (*entry, error)
	exists(bucket, key string) (bool, error)
	// list ranges over the entries of a bucket in the order of their keys. For a damaged entry it yields ErrCorrupt and
	// an entry with its key, if the key is known, and continues.
	list(q listing) iter.Seq2[*entry, error]
	// buckets returns the sorted names of all buckets.
	buckets() ([]string, error)
	stats() (keepcache.Stats, error)

	// set stores a value. An existing entry keeps its tags if w has none.
	set(bucket string, w write) error
	// add stores a value if the key is absent, and reports whether it was.
	add(bucket string, w write) (bool, error)
	// increment adds to an integer and returns the sum. The lifetime applies only to a new entry.
	increment(bucket, key string, by int64, ttl time.Duration) (int64, error)
	// restore stores an entry as it was exported. It reports false if the entry has expired meanwhile.
	restore(bucket string, e keepcache.Entry, v value) (bool, error)
	// together returns how many calls of restore may run at the same time.
	together() int
	delete(bucket, key string) (bool, error)
	touch(bucket, key string, ttl time.Duration) (bool, error)
	// invalidate makes all entries with one of the tags absent, all or nothing.
	invalidate(tags []string) error
	// clear removes the entries of a bucket, or those whose keys begin with prefix, and with drop the bucket too.
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

// entry is an entry with its value, from a file or from a program.
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

// known refuses a bucket that does not exist. The default bucket always counts as existing.
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
