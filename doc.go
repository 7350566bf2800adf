// Package keepcache is a cache that lives in one file and survives restarts. Values are JSON values, entries
// can expire, and the file is a bbolt database.
//
// # Basics
//
// [Open] opens the cache in a file and creates the file if there is none. [DB.Set] stores a value under a
// key for a lifetime, [DB.Get] reads it into a variable, [DB.Exists] and [DB.Delete] say whether it was there:
//
//	db, err := keepcache.Open("app.cache", nil)
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//
//	if err := db.Set("user:123", user, 5*time.Minute); err != nil {
//		return err
//	}
//	found, err := db.Get("user:123", &user)
//
// A key that is absent or expired is no error: found is false.
//
// [DB.Bucket] returns a [Bucket], a namespace of its own, which can do more. [Bucket.Add] stores only what
// is not there yet. [Bucket.TTL] and [Bucket.Touch] read and renew a lifetime. [Bucket.All],
// [Bucket.Prefix], [Bucket.Range] and [Bucket.Scan] range over entries in the order of their keys.
// [Bucket.DeletePrefix] and [Bucket.Clear] remove many. [Bucket.SetBytes] and [Bucket.GetBytes] store bytes
// as they are. A bucket is created with its first entry. The methods of [DB] itself work on the bucket named
// [DefaultBucket]; db.Bucket(keepcache.DefaultBucket) does everything that a Bucket can do with the same
// entries.
//
// Keys are any 1 to [MaxKeyBytes] bytes, names of buckets any 1 to [MaxNameBytes]. No byte has a special
// meaning: a prefix with a star in it is that prefix.
//
// [DB.Stats] returns what the cache did and its state, and [DB.Verify] proves the file entry by entry. The
// command in cmd/keepcache does the same and more from a shell.
//
// # Loading
//
// [Bucket.GetOrLoad] reads a value, and loads it if it is absent, once for all who wait. [LoadOptions] say
// how long the value is fresh, and how long after that it may be served stale while it is loaded anew, or
// because loading fails. They also say what happens if the source is slow or has no such thing. All of that
// is on disk: a restart changes nothing. docs/loading.md draws the timeline.
//
// [Of] returns a [View] of a bucket whose values are of one type. [Bucket.Swap], [Bucket.Take],
// [Bucket.Increment], [Bucket.Update] and [Bucket.CompareAndSwap] change a key depending on what it holds,
// atomically. A [Batch] writes to several buckets, all or nothing. [Bucket.WithTags] gives entries tags, and
// [DB.InvalidateTags] makes all entries with a tag absent.
//
// # Values
//
// A value is whatever encoding/json can marshal, and it reads back as json.Unmarshal would read it: json tags,
// MarshalJSON and UnmarshalJSON, time.Time, json.RawMessage and the rest do what they do there. It is
// stored as msgpack. Two things are better than in encoding/json when the destination is an any:
//
//   - An integer is an int64; above the range of that a uint64; beyond 64 bits a json.Number. No digit is lost.
//   - A float is a float64, also where it has no fraction.
//
// A nil is a value: it is stored as null, [DB.Get] finds it and [DB.Exists] is true. A []byte reads back into
// a []byte as the same bytes, and into an any as their base64 text. What JSON cannot express (channels,
// functions, NaN, infinities, cycles, more than 1,000 levels) gives [ErrUnsupportedValue], and what passes
// Options.MaxValueBytes gives [ErrTooLarge]; the entry that was there stays.
//
// What [DB.Get] returns belongs to the caller. Changing it changes nothing in the cache.
//
// # Expiry
//
// Each write has a lifetime. 0 is the default of the bucket, which [Options] set; without a default the
// entry never expires. With [NoExpiry] it never expires, whatever the default. A negative lifetime gives
// [ErrInvalidTTL]. A write replaces the old lifetime together with the value. Reads do not prolong it,
// except in a bucket with BucketOptions.Sliding; [Bucket.Touch] does.
//
// At its deadline an entry becomes absent for every operation, whether or not it has been removed from the
// file yet. A sweeper removes it later, in the background and in short transactions; [DB.Sweep] does so now.
// Deadlines are points in time. The time during which the cache is closed counts, and opening it gives no
// entry a new lifetime. Once a caller has seen a key absent at its deadline, nobody sees that value again: a
// write that depends on it, such as Touch or Update, fails or begins anew if the deadline passes while it
// waits. Deadlines follow the wall clock. After the clock is changed, writes follow at once and reads within
// 10 ms.
//
// # Durability
//
// A write goes into memory, where every read sees it at once, and into a journal beside the file. Then it
// returns: it survives the end of the process, also by kill -9. With [SyncPeriodic], the default, a power
// cut can cost what was written within the last Options.SyncInterval; [DB.Sync] makes durable what there is
// now. With [SyncAlways] a write returns when the disk has it, and writers that wait at the same time share
// one flush.
//
// In the background, commits move entries into the file, in bulk and sorted, at most Options.CommitInterval
// after they were written. Overwrites of a key between two commits cost the file one write, and what came
// and went costs it nothing. While the cache is open, and after a crash, the journal belongs to the file:
// its name is that of the file with "-journal" appended. The next Open continues with it. After [DB.Close]
// the file is all there is.
//
// [Bucket.SetMany] and [Bucket.DeleteMany] are all or nothing through a crash.
//
// The file is created with mode 0600, and a crash leaves either no file or a whole one. Each entry has a
// checksum over its bucket, its key, its times and its value. An entry that fails it is a miss, counted in
// Stats.Damaged, and never a wrong value.
//
// # Size
//
// Options.MaxBytes bounds the live data in the file: what entries and buckets need there, which Stats.Cost
// tells. [BucketOptions] bound a bucket, by bytes and by number of entries. Commits enforce these budgets.
// Entries that expired at least a second ago are evicted first, then those that were used least, recently
// and often; what was written last stays. An evicted entry is absent, as if it had expired. Use is recorded
// in memory only, so reads write nothing; after a restart the oldest entries are evicted first, until there
// is a new record.
//
// Free pages are used again. When much of the file is free, it is compacted in the background: copied to a
// new file, which then takes its name, while reads and writes go on. [DB.Compact] does it now. [DB.Backup]
// writes a copy of the cache while it is in use. After a crash a cache is two files, app.cache and
// app.cache-journal, which must be moved together.
//
// # Concurrency
//
// All methods of [DB] and [Bucket] may be called from any goroutine. Every read that begins after a write
// returned sees it. Of many callers of [Bucket.Add] for one key exactly one succeeds.
//
// A range sees each entry that lives from its beginning to its end once. No transaction is open while the
// body of the loop runs, so the loop may write to the cache and take its time. [Bucket.DeletePrefix] works in
// chunks; [Bucket.Clear] and [DB.DropBucket] take effect at one moment and return at once, and the sweeper
// frees the room later.
//
// # Reliability
//
// A damaged file is found before it is used. It is quarantined under another name and replaced by a fresh
// one, see Options.OnCorruption. If the file is cut short, removed or replaced while the cache is open, or
// its disk fails, reads find what memory has and writes go on, but operations that depend on stored data
// return [ErrUnavailable]. The cache repairs itself; Stats.Health tells its state. docs/reliability.md says
// what is promised, how that is tested, and what is not promised. [Repair] and the command `keepcache
// repair` save what can be proved of a damaged file.
//
// # Looking inside
//
// Package inspect serves an open cache over HTTP, or on a socket beside the file: a page, metrics, and a
// protocol that the command speaks. It uses what any program can use: [DB.Stats]; [DB.Watch], the events as
// they happen; [Bucket.Scan], pages of a long list; [DB.Expiring], what expires next; and [Bucket.Stat] with
// [Entry.AppendJSON], an entry and its value as JSON without using it. [DB.OnClose] stops what serves a
// cache before the cache is closed.
//
// # Caveats
//
// One process at a time can have a cache open; another gets [ErrLocked] after Options.LockTimeout. Any
// number of processes can have it open with Options.ReadOnly, but none beside a writer. With Options.NoLock
// a process reads beside a writer, without its lock; the command in cmd/keepcache does so if it has to.
//
// A compaction needs room on the disk for a copy of what the file holds. On Windows, where an open file cannot be
// replaced, [DB.Compact] returns an error and the file does not shrink; free pages are used again.
//
// The errors of all operations are of type [*Error], and errors.Is finds the cause in them: [ErrLocked],
// [ErrClosed] and the others.
package keepcache
