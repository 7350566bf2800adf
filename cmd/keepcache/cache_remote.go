package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/display"
	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

// remote is a cache that another program has open and serves.
type remote struct {
	client *wire.Client
	hello  wire.Hello
	ctx    context.Context // of short requests
}

// helloWait is how long a program may take to answer the first request before it counts as hung.
const helloWait = 2 * time.Second

// answerWait is how long a program may take for a short request. Tests change it.
var answerWait = 30 * time.Second

// dial connects to the program at addr.
func dial(ctx context.Context, addr string) (*remote, error) {
	client, err := wire.New(addr)
	if err != nil {
		return nil, usagef("--addr: %v", err)
	}
	client.Patience = answerWait
	hello, err := greet(ctx, client)
	if err != nil {
		client.Close()
		return nil, err
	}
	return &remote{client, hello, ctx}, nil
}

func greet(ctx context.Context, client *wire.Client) (wire.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	hello, err := client.Hello(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w at %s within %s", wire.ErrNoServer, client.Addr(), showLifetime(helloWait))
	}
	return hello, err
}

func (r *remote) close() { r.client.Close() }

// who names the program.
func (r *remote) who() string {
	who := fmt.Sprintf("process %d", r.hello.PID)
	if r.hello.Program != "" {
		who += ", " + printable(oneLine(r.hello.Program))
	}
	return who
}

func (r *remote) brief() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.ctx, answerWait)
}

func (r *remote) find(bucket, key string, values bool) (*entry, error) {
	ctx, cancel := r.brief()
	defer cancel()
	w, err := r.client.Entry(ctx, bucket, key, values)
	switch {
	case errors.Is(err, keepcache.ErrNotFound):
		return nil, absentKey(key, bucket)
	case errors.Is(err, keepcache.ErrCorrupt):
		return nil, damagedEntry(bucket, key)
	case err != nil:
		return nil, err
	}
	return unwire(w, values)
}

// unwire converts an entry of the protocol.
func unwire(w wire.Entry, values bool) (*entry, error) {
	e := &entry{Entry: w.Entry(), redacted: w.Redacted, partial: w.ETagHidden}
	switch {
	case !values:
		return e, nil
	case w.Hidden || w.Value == nil:
		return nil, wire.ErrNoValues
	}
	n, err := jsontext.Parse(w.Value)
	if err != nil {
		return nil, fmt.Errorf("%w: the value of %s: %w", wire.ErrInternal, display.Name(e.Key), err)
	}
	n.Mark(w.Literals)
	e.wired = &n
	return e, nil
}

func (r *remote) exists(bucket, key string) (bool, error) {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.Exists(ctx, bucket, key)
}

func (r *remote) list(q listing) iter.Seq2[*entry, error] {
	return func(yield func(*entry, error) bool) {
		limit := 0 // the default of the server
		if q.limit > 0 {
			limit = q.limit + 1 // one more, to see whether there are more
		}
		damaged, told := 0, 0
		for w, err := range r.client.All(r.ctx, wire.Query{
			Bucket: q.bucket, Prefix: q.Prefix, From: q.From, To: q.To, Glob: q.glob, Tag: q.Tag, After: q.After, Limit: limit,
			Values: !q.KeysOnly, Reverse: q.Reverse, Stale: q.Stale,
		}, &damaged) {
			for ; told < damaged; told++ {
				if !yield(&entry{Entry: keepcache.Entry{Key: "?"}}, keepcache.ErrCorrupt) {
					return
				}
			}
			var e *entry
			if err == nil {
				e, err = unwire(w, !q.KeysOnly)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		for ; told < damaged; told++ {
			if !yield(&entry{Entry: keepcache.Entry{Key: "?"}}, keepcache.ErrCorrupt) {
				return
			}
		}
	}
}

func (r *remote) buckets() ([]string, error) {
	ctx, cancel := r.brief()
	defer cancel()
	list, err := r.client.Buckets(ctx)
	names := make([]string, len(list))
	for i, b := range list {
		names[i] = string(b.Name)
	}
	return names, err
}

func (r *remote) stats() (keepcache.Stats, error) {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.Stats(ctx)
}

// fill puts the value into a write.
func (v *value) fill(w *wire.Write) {
	w.Value, w.Literals = v.text, v.literals
	if v.text == nil {
		w.Bytes = append([]byte{}, v.raw...) // not nil: empty bytes are bytes
	}
}

// wired converts a write for the protocol.
func (w *write) wired(bucket string) wire.Write {
	to := wire.Write{Bucket: wire.Name(bucket), Key: wire.Name(w.key), TTL: wire.TTL(w.ttl)}
	w.value.fill(&to)
	if len(w.tags) > 0 {
		tags := make([]wire.Name, len(w.tags))
		for i, tag := range w.tags {
			tags[i] = wire.Name(tag)
		}
		to.Tags = &tags
	}
	return to
}

func (r *remote) set(bucket string, w write) error {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.Set(ctx, w.wired(bucket))
}

func (r *remote) add(bucket string, w write) (bool, error) {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.Add(ctx, w.wired(bucket))
}

func (r *remote) increment(bucket, key string, by int64, ttl time.Duration) (int64, error) {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.Increment(ctx, bucket, key, by, ttl)
}

func (r *remote) invalidate(tags []string) error {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.InvalidateTags(ctx, tags)
}

func (r *remote) restore(bucket string, e keepcache.Entry, v value) (bool, error) {
	ctx, cancel := r.brief()
	defer cancel()
	w := wire.Restore(bucket, e)
	v.fill(&w)
	return restored(e, r.client.Restore(ctx, w))
}

func (r *remote) together() int { return 8 }

func (r *remote) delete(bucket, key string) (bool, error) {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.Delete(ctx, bucket, key)
}

func (r *remote) touch(bucket, key string, ttl time.Duration) (bool, error) {
	ctx, cancel := r.brief()
	defer cancel()
	return r.client.Touch(ctx, bucket, key, ttl)
}

func (r *remote) clear(ctx context.Context, bucket, prefix string, drop bool) (int, error) {
	return r.client.Clear(ctx, bucket, prefix, drop)
}

func (r *remote) sweep(ctx context.Context) (int, error) { return r.client.Sweep(ctx) }

func (r *remote) compact(ctx context.Context) (before, after int64, err error) {
	c, err := r.client.Compact(ctx)
	return c.Before, c.After, err
}

func (r *remote) backup(ctx context.Context, w io.Writer) error { return r.client.Backup(ctx, w) }
