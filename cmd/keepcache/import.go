package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsontext"
	"github.com/keepcache/keepcache/internal/wire"
)

func newImportCommand(f *flags) *cobra.Command {
	var most int64
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Read entries that export wrote",
		Long: `Import reads entries from FILE or standard input, in the JSON Lines that export
writes, and stores them. It replaces entries with the same key and keeps all
others. Deadlines are absolute: import skips entries that have expired, and
counts them.

Only key and value are required, and bucket unless --bucket is given. All other
members (see keepcache help export) are optional. ttl_ms may replace
expires_at_ms: it is a lifetime from now on, in milliseconds, or -1 for no
expiry. With --bucket, all entries go into that bucket.

At a bad line, import stops and names the line; the lines before it are stored.
If there is no cache file, import creates one only if the whole import
succeeds.`,
		Example: `  keepcache export --file old.cache | keepcache import --file new.cache
  keepcache import backup.jsonl`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkMost(most); err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if len(args) > 0 && args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			tellTyping(in, cmd.ErrOrStderr(), "lines")
			ctx, stop := interruptible(cmd)
			defer stop()
			options := keepcache.Options{MaxValueBytes: int(most)}
			return f.openWith(cmd, filling, options, func(c cache, one string) error {
				im := &importer{cache: c, progress: newProgress(cmd.ErrOrStderr()), longest: longestLine(most)}
				if cmd.Flags().Changed("bucket") {
					im.into = one
				}
				err := im.run(ctx, in)
				im.progress.end()
				if l, ok := c.(*local); ok && l.fresh && err != nil {
					return fmt.Errorf("%w; no cache file was created", err)
				}
				words := "imported " + plural(im.imported, "entry", "entries")
				if im.expired > 0 {
					words += fmt.Sprintf(", skipped %d that had expired", im.expired)
				}
				fmt.Fprintln(cmd.ErrOrStderr(), words)
				return err
			})
		},
	}
	addMost(cmd, &most)
	return cmd
}

// longestLine returns the length of the longest line for values of up to most bytes: in JSON, a byte of a string or key
// takes up to six characters.
func longestLine(most int64) int {
	const names = 6 * (keepcache.MaxKeyBytes + keepcache.MaxNameBytes)
	return int(min(6*most+names+1024, math.MaxInt32))
}

// Batches of import. The library commits together what is set at the same time.
const (
	batchLines = 1000
	batchBytes = 8 << 20
)

// importer sets lines in batches.
type importer struct {
	cache    cache
	into     string // the one bucket to import into, or empty
	longest  int    // bytes of a line
	progress *progress

	imported, expired int

	batch []*line
	seen  map[[2]string]bool // bucket and key of what is in the batch
	bytes int
}

// line is one entry to set.
type line struct {
	number int
	bucket string
	entry  keepcache.Entry
	value  value
	gone   bool // it had expired when it was its turn
	err    error
}

func (im *importer) run(ctx context.Context, in io.Reader) error {
	im.seen = make(map[[2]string]bool)
	r := bufio.NewReaderSize(in, 64<<10)
	for number := 1; ; number++ {
		if ctx.Err() != nil {
			return errors.Join(im.flush(), errInterrupted)
		}
		text, err := readLine(r, im.longest)
		if err == io.EOF {
			return im.flush()
		}
		var l *line
		if err == nil && len(bytes.TrimSpace(text)) > 0 {
			l, err = im.parse(text)
		}
		if err != nil {
			if flushErr := im.flush(); flushErr != nil {
				return flushErr
			}
			return lineError(number, err)
		}
		if l == nil {
			continue
		}
		l.number = number
		if err := im.add(l, len(text)); err != nil {
			return err
		}
	}
}

// lineError names a bad line. It does not wrap the cause: an invalid key in a line is not wrong usage.
func lineError(number int, err error) error {
	return fmt.Errorf("line %d: %s", number, strings.TrimPrefix(err.Error(), "keepcache: "))
}

// readLine returns the next line without its line end, io.EOF after the last line, and an error if a line is longer
// than longest.
func readLine(r *bufio.Reader, longest int) ([]byte, error) {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > longest:
			return nil, fmt.Errorf("it is longer than %d bytes; --max-value-bytes allows more", longest)
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(text) > 0, err == nil:
			return bytes.TrimRight(text, "\r\n"), nil
		}
		return nil, err
	}
}

// add puts l into the batch. The lines of a batch are set at the same time, so a batch has no key twice.
func (im *importer) add(l *line, size int) error {
	id := [2]string{l.bucket, l.entry.Key}
	if im.seen[id] || len(im.batch) == batchLines || im.bytes+size > batchBytes {
		if err := im.flush(); err != nil {
			return err
		}
	}
	im.seen[id] = true
	im.batch = append(im.batch, l)
	im.bytes += size
	return nil
}

// flush sets the batch.
func (im *importer) flush() error {
	var wait sync.WaitGroup
	turns := make(chan struct{}, im.cache.together())
	for _, l := range im.batch {
		turns <- struct{}{}
		wait.Go(func() {
			l.set(im.cache)
			<-turns
		})
	}
	wait.Wait()
	var err error
	for _, l := range im.batch {
		switch {
		case l.err != nil:
			if err == nil {
				err = lineError(l.number, l.err)
			}
		case l.gone:
			im.expired++
		default:
			im.imported++
		}
	}
	im.batch, im.bytes = im.batch[:0], 0
	clear(im.seen)
	im.progress.show("%s imported", plural(im.imported, "entry", "entries"))
	return err
}

func (l *line) set(c cache) {
	stored, err := c.restore(l.bucket, l.entry, l.value)
	l.gone, l.err = err == nil && !stored, err
}

// record is a line as it is written.
type record struct {
	Bucket       *string         `json:"bucket"`
	BucketBase64 []byte          `json:"bucket_base64"`
	ETag         *string         `json:"etag"`
	ETagBase64   []byte          `json:"etag_base64"`
	Expires      *int64          `json:"expires_at_ms"`
	Gone         *int64          `json:"stale_until_ms"`
	Key          *string         `json:"key"`
	KeyBase64    []byte          `json:"key_base64"`
	Literals     []int           `json:"literals"`
	Loaded       *int64          `json:"loaded_at_ms"`
	Negative     bool            `json:"negative"`
	Retry        *int64          `json:"retry_at_ms"`
	Sliding      *int64          `json:"sliding_ms"`
	Tags         []wire.Name     `json:"tags"`
	TTL          *int64          `json:"ttl_ms"`
	Value        json.RawMessage `json:"value"`
	Written      *int64          `json:"written_at_ms"`
}

// isCacheFile reports whether text begins like a cache file: with a meta page of bbolt.
func isCacheFile(text []byte) bool {
	const kind, meta, magicAt, magic = 8, 4, 16, 0xed0cdaed
	return len(text) >= magicAt+4 && binary.NativeEndian.Uint16(text[kind:]) == meta &&
		binary.NativeEndian.Uint32(text[magicAt:]) == magic
}

func (im *importer) parse(text []byte) (*line, error) {
	if isCacheFile(text) {
		return nil, errors.New("it is not text but a cache file: keepcache restore puts a backup in place, " +
			"and keepcache export --file writes the lines of one")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8 text")
	}
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, lineWords(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more text after the object")
	}
	l := &line{}
	var err error
	if l.entry.Key, err = nameOf("key", r.Key, r.KeyBase64); err != nil {
		return nil, err
	}
	if l.bucket = im.into; l.bucket == "" {
		if l.bucket, err = nameOf("bucket", r.Bucket, r.BucketBase64); err != nil {
			return nil, err
		}
	}
	if r.Value == nil {
		return nil, errors.New("it has no value")
	}
	if err := r.fill(&l.entry, time.Now()); err != nil {
		return nil, err
	}
	if _, err := jsontext.Parse(r.Value); err != nil {
		return nil, err
	}
	l.value = value{text: r.Value, literals: r.Literals}
	return l, nil
}

// fill copies the members of a line to an entry, except key and value.
func (r *record) fill(e *keepcache.Entry, now time.Time) error {
	w := wire.Write{Key: wire.Name(e.Key), Negative: r.Negative}
	for _, m := range []struct {
		name       string
		from, into *int64
		never      bool // -1 means never
	}{
		{"expires_at_ms", r.Expires, &w.ExpiresAt, false}, {"ttl_ms", r.TTL, &w.TTL, true},
		{"stale_until_ms", r.Gone, &w.StaleUntil, true},
		{"loaded_at_ms", r.Loaded, &w.LoadedAt, false}, {"retry_at_ms", r.Retry, &w.RetryAt, false},
		{"sliding_ms", r.Sliding, &w.Sliding, false},
		{"written_at_ms", r.Written, &w.WrittenAt, false},
	} {
		if m.from == nil {
			continue
		}
		if *m.into = *m.from; *m.from <= 0 && !(m.never && *m.from == -1) {
			return fmt.Errorf("%s is %d", m.name, *m.from)
		}
	}
	if r.ETag != nil || r.ETagBase64 != nil {
		etag, err := nameOf("etag", r.ETag, r.ETagBase64)
		if err != nil {
			return err
		}
		w.ETag = wire.Name(etag)
	}
	if len(r.Tags) > 0 {
		w.Tags = &r.Tags
	}
	if w.TTL != 0 && w.ExpiresAt != 0 {
		return errors.New("it has both expires_at_ms and ttl_ms")
	}
	if w.TTL > 0 {
		start := now.UnixMilli()
		w.ExpiresAt = start + min(w.TTL, math.MaxInt64-start)
	}
	if w.StaleUntil != 0 && w.StaleUntil != -1 && (w.ExpiresAt == 0 || w.StaleUntil < w.ExpiresAt) {
		return errors.New("stale_until_ms is before it expires")
	}
	*e = w.Entry()
	return nil
}

// lineWords rephrases an error of encoding/json for a line of import.
func lineWords(err error) error {
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is truncated")
	case errors.As(err, &mismatch) && mismatch.Field == "":
		return fmt.Errorf("it is not an object but %s", mismatch.Value)
	case errors.As(err, &mismatch):
		return fmt.Errorf("%s cannot be %s", mismatch.Field, mismatch.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// nameOf returns a name from whichever of its two members is present.
func nameOf(member string, name *string, base64 []byte) (string, error) {
	switch {
	case name != nil && base64 != nil:
		return "", fmt.Errorf("it has both %s and %s_base64", member, member)
	case name != nil:
		return *name, nil
	case base64 != nil:
		return string(base64), nil
	}
	return "", fmt.Errorf("it has no %s", member)
}
