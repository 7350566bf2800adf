package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/jsontext"
)

func newImportCommand(f *flags) *cobra.Command {
	var most int64
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Read entries that export wrote",
		Long: `Import sets the entries in a file of JSON Lines, or in standard input, as export
writes them. Entries of the same key are replaced, others stay. Deadlines are
absolute: what expired meanwhile is left out, and counted. With --bucket everything
goes into that bucket. At a bad line import stops and names it; the lines before it
are in. The cache file is made if there is none.`,
		Example: `  keepcache export --file old.cache | keepcache import --file new.cache
  keepcache import backup.jsonl`,
		Args: cobra.MaximumNArgs(1),
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
			return f.openWith(cmd, creating, options, func(c cache, one string) error {
				im := &importer{cache: c, progress: newProgress(cmd.ErrOrStderr()), longest: longestLine(most)}
				if cmd.Flags().Changed("bucket") {
					im.into = one
				}
				err := im.run(ctx, in)
				im.progress.end()
				words := "imported " + plural(im.imported, "entry", "entries")
				if im.expired > 0 {
					words += fmt.Sprintf(", left out %d that expired meanwhile", im.expired)
				}
				fmt.Fprintln(cmd.ErrOrStderr(), words)
				return err
			})
		},
	}
	addMost(cmd, &most)
	return cmd
}

// longestLine is the longest line to read for values of up to most bytes: JSON writes a byte of a string,
// or of a key, as six characters at worst.
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
	number      int
	bucket, key string
	value       value
	expires     int64 // unix milliseconds; 0 for never
	gone        bool  // it had expired when its turn came
	err         error
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

// lineError says which line is bad. It does not wrap the cause: an invalid key in a line is not wrong usage.
func lineError(number int, err error) error {
	return fmt.Errorf("line %d: %s", number, strings.TrimPrefix(err.Error(), "keepcache: "))
}

// readLine returns the next line without its end, io.EOF after the last one, and an error for one that is
// longer than longest.
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

// add puts l into the batch. Lines of one batch are set at the same time, so it has no key twice.
func (im *importer) add(l *line, size int) error {
	id := [2]string{l.bucket, l.key}
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
	stored, err := c.restore(l.bucket, l.key, l.value, l.expires)
	l.gone, l.err = err == nil && !stored, err
}

// record is a line as it is written.
type record struct {
	Bucket       *string         `json:"bucket"`
	BucketBase64 []byte          `json:"bucket_base64"`
	Expires      *int64          `json:"expires_ms"`
	Key          *string         `json:"key"`
	KeyBase64    []byte          `json:"key_base64"`
	Literals     []int           `json:"literals"`
	Value        json.RawMessage `json:"value"`
}

func (im *importer) parse(text []byte) (*line, error) {
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
		return nil, errors.New("there is something behind the object")
	}
	l := &line{}
	var err error
	if l.key, err = nameOf("key", r.Key, r.KeyBase64); err != nil {
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
	if r.Expires != nil {
		if l.expires = *r.Expires; l.expires <= 0 {
			return nil, fmt.Errorf("expires_ms is %d", l.expires)
		}
	}
	if _, err := jsontext.Parse(r.Value); err != nil {
		return nil, err
	}
	l.value = value{text: r.Value, literals: r.Literals}
	return l, nil
}

// lineWords says in the words of import what encoding/json has against a line.
func lineWords(err error) error {
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is cut short")
	case errors.As(err, &mismatch) && mismatch.Field == "":
		return fmt.Errorf("it is no object but %s", mismatch.Value)
	case errors.As(err, &mismatch):
		return fmt.Errorf("%s cannot be %s", mismatch.Field, mismatch.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// nameOf returns a name from the one of its two members that is there.
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
