package keepcache

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/keepcache/keepcache/internal/engine"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/foreign"
	"github.com/keepcache/keepcache/internal/format"
)

// NoExpiry as a lifetime means that the entry never expires, whatever its bucket's default.
const NoExpiry = time.Duration(math.MaxInt64)

// Limits of names. They come from bbolt's largest key (32,768 bytes), of which the expiry index needs 16.
const (
	MaxKeyBytes  = 32_000
	MaxNameBytes = 255
)

// DefaultBucket is the name of the bucket that the four methods of DB speak for.
const DefaultBucket = "default"

// Options configure a cache. The zero value of each field is its default. For a size or a time, -1 means unlimited or
// off, as the field says. Open refuses other negative values, and values below the minimum that a field names. It
// copies the options: later changes have no effect.
type Options struct {
	// DefaultTTL is the lifetime of an entry that is set with a lifetime of 0, in buckets that have
	// none of their own. -1 is none, as NoExpiry is. Default: none, such an entry never expires.
	DefaultTTL time.Duration

	// Buckets holds what differs from bucket to bucket, by the bucket's name. A bucket that is not in
	// it follows the options of the DB. Default: nil.
	Buckets map[string]BucketOptions

	// Sync says when a write returns. Default: SyncPeriodic.
	Sync SyncMode

	// SyncInterval bounds what a power cut can cost with SyncPeriodic: a write is durable at most this long after it
	// returned. With -1 only Sync and commits flush, see CommitInterval. Default: 100 ms.
	SyncInterval time.Duration

	// MaxBytes bounds the live data of the file, in bytes. When a commit passes it, expired entries are evicted first, and
	// then those that were used least. What was written last stays. An entry that alone is larger gives ErrTooLarge. At
	// least 1 KiB; -1 is unlimited. Default: 1 GiB.
	//
	// An entry counts what it needs in a compacted file: its key and its record (the encoded value and 39 bytes), its
	// share of the pages, and its key once more in the expiry index. For a small entry that is a few dozen bytes more than
	// key and record. For one of about the size of a page it is up to twice as much, and for a key of many kilobytes four
	// times the key. A bucket counts too, by its name. Buckets are not evicted; whatever they need, half of MaxBytes is
	// left to entries.
	//
	// Compaction keeps the file itself below three times MaxBytes and 16 MiB. If MaxBytes is unlimited, or far from
	// reached, it keeps the file below three times Stats.Cost.
	MaxBytes int64

	// MemoryBytes bounds the memory for entries, in bytes: for those that the file does not have yet, and for those that
	// were read or written lately. It counts keys, records and the tables that hold them. Writers wait while the entries
	// that the file does not have yet take three quarters of it. At least 64 KiB; -1 is unlimited, and then nothing is
	// evicted from memory. Default: 64 MiB.
	//
	// A bucket takes 256 bytes and its name. Entries make room for buckets, down to three eighths of MemoryBytes; beyond
	// that, names take what they need.
	//
	// Two things come on top. A commit takes up to 16 MiB and a quarter of MemoryBytes for pages of the file, if values
	// are smaller than 1 MiB. And Go leaves garbage between two collections, as in any program (GOGC).
	MemoryBytes int64

	// JournalBytes bounds the journal beside the file, in bytes. A write that does not fit is committed to the file at
	// once. A larger journal lets more overwrites of a key cost one write of the file, and takes longer to replay after a
	// crash. At least 64 KiB; -1 is unlimited. Default: 128 MiB.
	JournalBytes int64

	// CommitInterval is how long a write may stay out of the file. A longer interval lets more overwrites of a key cost
	// one write of the file. A crash loses nothing in either case. With -1 a commit begins only when CommitBytes,
	// MemoryBytes or JournalBytes require it, or a call such as Sweep or Close. Default: 5 s.
	CommitInterval time.Duration

	// CommitBytes is how many bytes of entries may wait for a commit before it begins early. It is at most three eighths
	// of MemoryBytes, which is what -1 stands for. Default: 24 MiB.
	CommitBytes int64

	// CompactBytes is how many bytes of free pages make the file worth compacting in the background, once half of the file
	// is free and nothing is written, or three fifths otherwise. A file much larger than what it holds is compacted in any
	// case. -1 leaves compaction to calls of Compact. Default: 8 MiB.
	CompactBytes int64

	// MaxValueBytes is the size of the largest encoded value, in bytes; a larger one gives ErrTooLarge. At most 500 MiB,
	// the limit of the format, which is what -1 stands for. Default: 64 MiB.
	MaxValueBytes int

	// SweepInterval is how often the sweeper looks for expired entries. An expired entry is absent from its deadline on,
	// swept or not. The interval only decides when its room is freed: up to about a second later than that. -1 turns the
	// sweeper off, so that only Sweep and overwrites free room. Default: 1 s.
	SweepInterval time.Duration

	// LockTimeout is how long Open waits for a file that another process holds, before it gives
	// ErrLocked. -1 does not wait at all. Default: 1 s.
	LockTimeout time.Duration

	// ReadOnly opens an existing file for reading: nothing is created, swept or changed, and every write gives
	// ErrReadOnly. Several processes can have the file open for reading at the same time, but none beside a writer, unless
	// with NoLock. Default: false.
	ReadOnly bool

	// OnCorruption says what becomes of a file that is damaged. Default: CorruptionQuarantine.
	OnCorruption OnCorruption

	// NoLock, which needs ReadOnly, opens a file that another process may have open, without its lock and without delaying
	// that process. Each operation reads the file and its journal anew, and again if they changed meanwhile. So it sees
	// every write that had returned before it began, but not by how much reads have prolonged lifetimes since (see
	// BucketOptions.Sliding). Each page of a range shows one moment. Operations fail while the other process writes faster
	// than this one can read. Statistics are those that the file has. Default: false.
	NoLock bool

	// Events says whom to tell what happens in the cache. Default: nobody.
	Events Events

	// Logger gets what no caller can see, such as a failed sweep. Default: nil, nothing is logged.
	Logger *slog.Logger
}

// SyncMode says what a write waits for.
type SyncMode int

const (
	// SyncPeriodic lets a write return when the operating system has it. It survives kill -9, and after SyncInterval also
	// a power cut.
	SyncPeriodic SyncMode = iota

	// SyncAlways lets a write return when the disk has it. Writers that wait at the same time share a flush. A call that
	// finds nothing to write, such as an Add of a key that is there, waits for what it saw as well. Reads do not wait:
	// they may see what another goroutine is still waiting for.
	SyncAlways
)

// BucketOptions are the options of one bucket.
type BucketOptions struct {
	// DefaultTTL is the lifetime of an entry that is set with a lifetime of 0. NoExpiry keeps such
	// entries for ever, even if Options.DefaultTTL is shorter, and so does -1. Default: Options.DefaultTTL.
	DefaultTTL time.Duration

	// MaxBytes bounds the live data of the bucket, in bytes, as Options.MaxBytes bounds that of the cache. Both hold. The
	// bucket's name does not count. At least 1 KiB; -1 is unlimited. Default: unlimited.
	MaxBytes int64

	// MaxEntries bounds the number of entries in the bucket, including expired ones that were not swept yet. Between two
	// commits there may be more. -1 is unlimited. Default: unlimited.
	MaxEntries int64

	// Sliding lets a lifetime begin anew with each Get, GetBytes, GetMany, Exists and GetOrLoad that finds the entry; TTL,
	// Stat and ranges only look. Most such reads write nothing: the new deadline stays in memory until it is more than an
	// eighth of the lifetime later than the one on disk. So a crash forgets at most an eighth. The write that stores the
	// deadline gives the entry a new revision. Entries that were written while Sliding was off keep their deadline. An
	// entry without a lifetime never expires, so Sliding mostly goes with a DefaultTTL. Default: false.
	Sliding bool
}

const (
	defaultMaxValueBytes = 64 << 20
	defaultSweepInterval = time.Second
	defaultLockTimeout   = time.Second

	defaultMaxBytes       = 1 << 30
	defaultSyncInterval   = 100 * time.Millisecond
	defaultMemoryBytes    = 64 << 20
	defaultJournalBytes   = 128 << 20
	defaultCommitInterval = 5 * time.Second
	defaultCommitBytes    = 24 << 20
	defaultCompactBytes   = 8 << 20

	leastMaxBytes     = 1 << 10
	leastMemoryBytes  = 64 << 10
	leastJournalBytes = 64 << 10
)

// withDefaults returns a filled and validated copy of o, which may be nil.
func (o *Options) withDefaults() (Options, error) {
	var f Options
	if o != nil {
		f = *o
	}
	var err error
	if f.DefaultTTL, err = defaultTTL(f.DefaultTTL, NoExpiry); err != nil {
		return f, fmt.Errorf("%w DefaultTTL: %w", ErrInvalidOption, err)
	}
	buckets := make(map[string]BucketOptions, len(f.Buckets))
	for name, b := range f.Buckets {
		if !format.ValidName(name) {
			return f, fmt.Errorf("%w Buckets: %w: %s", ErrInvalidOption, ErrInvalidName, errs.Quote(name))
		}
		if b.DefaultTTL, err = defaultTTL(b.DefaultTTL, f.DefaultTTL); err != nil {
			return f, fmt.Errorf("%w Buckets[%s]: DefaultTTL: %w", ErrInvalidOption, errs.Quote(name), err)
		}
		if b.MaxBytes, err = size(b.MaxBytes, engine.Unlimited, leastMaxBytes); err != nil {
			return f, fmt.Errorf("%w Buckets[%s]: MaxBytes: %w", ErrInvalidOption, errs.Quote(name), err)
		}
		switch {
		case b.MaxEntries == 0, b.MaxEntries == -1:
			b.MaxEntries = engine.Unlimited
		case b.MaxEntries < 0:
			return f, fmt.Errorf("%w Buckets[%s]: MaxEntries: %d is negative", ErrInvalidOption, errs.Quote(name), b.MaxEntries)
		}
		b.MaxEntries = min(b.MaxEntries, engine.Unlimited)
		buckets[name] = b
	}
	f.Buckets = buckets

	switch {
	case f.MaxValueBytes == 0:
		f.MaxValueBytes = defaultMaxValueBytes
	case f.MaxValueBytes == -1:
		f.MaxValueBytes = format.MaxValueBytes
	case f.MaxValueBytes < 0 || f.MaxValueBytes > format.MaxValueBytes:
		return f, fmt.Errorf("%w MaxValueBytes: %d is not between 1 and %d", ErrInvalidOption, f.MaxValueBytes,
			format.MaxValueBytes)
	}
	if f.Sync != SyncPeriodic && f.Sync != SyncAlways {
		return f, fmt.Errorf("%w Sync: unknown mode %d", ErrInvalidOption, f.Sync)
	}
	if f.OnCorruption != CorruptionQuarantine && f.OnCorruption != CorruptionFail {
		return f, fmt.Errorf("%w OnCorruption: unknown choice %d", ErrInvalidOption, f.OnCorruption)
	}
	if f.MaxBytes, err = size(f.MaxBytes, defaultMaxBytes, leastMaxBytes); err != nil {
		return f, fmt.Errorf("%w MaxBytes: %w", ErrInvalidOption, err)
	}
	if f.MemoryBytes, err = size(f.MemoryBytes, defaultMemoryBytes, leastMemoryBytes); err != nil {
		return f, fmt.Errorf("%w MemoryBytes: %w", ErrInvalidOption, err)
	}
	if f.JournalBytes, err = size(f.JournalBytes, defaultJournalBytes, leastJournalBytes); err != nil {
		return f, fmt.Errorf("%w JournalBytes: %w", ErrInvalidOption, err)
	}
	if f.CommitBytes, err = size(f.CommitBytes, defaultCommitBytes, 1); err != nil {
		return f, fmt.Errorf("%w CommitBytes: %w", ErrInvalidOption, err)
	}
	if f.CompactBytes, err = size(f.CompactBytes, defaultCompactBytes, 1); err != nil {
		return f, fmt.Errorf("%w CompactBytes: %w", ErrInvalidOption, err)
	}
	if f.SyncInterval, err = interval(f.SyncInterval, defaultSyncInterval); err != nil {
		return f, fmt.Errorf("%w SyncInterval: %w", ErrInvalidOption, err)
	}
	if f.CommitInterval, err = interval(f.CommitInterval, defaultCommitInterval); err != nil {
		return f, fmt.Errorf("%w CommitInterval: %w", ErrInvalidOption, err)
	}
	if f.SweepInterval, err = interval(f.SweepInterval, defaultSweepInterval); err != nil {
		return f, fmt.Errorf("%w SweepInterval: %w", ErrInvalidOption, err)
	}
	if f.LockTimeout, err = interval(f.LockTimeout, defaultLockTimeout); err != nil {
		return f, fmt.Errorf("%w LockTimeout: %w", ErrInvalidOption, err)
	}
	if f.NoLock && !f.ReadOnly {
		return f, fmt.Errorf("%w NoLock: it needs ReadOnly", ErrInvalidOption)
	}
	if f.Logger == nil {
		f.Logger = slog.New(slog.DiscardHandler)
	} else {
		f.Logger = slog.New(foreign.Logger(f.Logger.Handler()))
	}
	return f, nil
}

// defaultTTL fills in a default lifetime: 0 inherits, -1 is none.
func defaultTTL(ttl, inherited time.Duration) (time.Duration, error) {
	switch {
	case ttl == 0:
		return inherited, nil
	case ttl == -1:
		return NoExpiry, nil
	case ttl < 0:
		return 0, ErrInvalidTTL
	}
	return ttl, nil
}

// interval fills in a duration: 0 is the default, -1 is off and stays.
func interval(d, byDefault time.Duration) (time.Duration, error) {
	switch {
	case d == 0:
		return byDefault, nil
	case d < -1:
		return 0, fmt.Errorf("%v is negative", d)
	}
	return d, nil
}

// size fills in a number of bytes: 0 is the default, -1 is unlimited, and so is what nothing reaches.
func size(n, byDefault, least int64) (int64, error) {
	switch {
	case n == 0:
		return byDefault, nil
	case n == -1:
		return engine.Unlimited, nil
	case n < least:
		return 0, fmt.Errorf("%d is less than %d bytes", n, least)
	}
	return min(n, engine.Unlimited), nil
}

// OnCorruption says what becomes of a file that is damaged.
type OnCorruption int

const (
	// CorruptionQuarantine renames a damaged file to <path>.corrupt-<time> and goes on with a fresh one. The fresh file
	// takes over the identity, the revisions and the names of the buckets, as far as they can be read, and gets what the
	// journal has. The three newest such files are kept, up to 4 GiB together; the newest one is kept whatever its size.
	// `keepcache repair` saves what checksums prove out of them.
	CorruptionQuarantine OnCorruption = iota

	// CorruptionFail makes Open return ErrCorrupt for a damaged file, which stays as it is. A file that is found damaged
	// while it is open stays unavailable.
	CorruptionFail
)
