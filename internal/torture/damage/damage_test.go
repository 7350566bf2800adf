package damage_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

// seal gives a stored entry the checksum that belongs to it.
func seal(stored []byte, bucket, key string) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	body := stored[cachetest.StoredRecord : len(stored)-4]
	sum := crc32.Checksum(append([]byte{byte(len(bucket))}, bucket...), table)
	sum = crc32.Update(crc32.Update(sum, table, []byte(key)), table, body)
	return binary.BigEndian.AppendUint32(stored[:len(stored)-4:len(stored)-4], sum)
}

// indexRow returns the index row of an entry whose row in the expiry index stands at the given time.
func indexRow(at uint64, key string) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(binary.BigEndian.AppendUint64(nil, at), table), table, []byte(key))
	return binary.BigEndian.AppendUint64(nil, uint64(sum)<<48|at)
}

// requireDamaged requires that a key reads as absent and that what depends on it is refused.
func requireDamaged(t cachetest.Tester, b *keepcache.Bucket, key string) {
	t.Helper()
	got := "untouched"
	found, err := b.Get(key, &got)
	require.NoError(t, err)
	require.False(t, found, "a damaged entry was read: %q", key)
	require.Equal(t, "untouched", got)
	exists, err := b.Exists(key)
	require.NoError(t, err)
	require.False(t, exists)
	_, found, err = b.TTL(key)
	require.NoError(t, err)
	require.False(t, found)
	_, found, err = b.Stat(key)
	require.ErrorIs(t, err, keepcache.ErrCorrupt)
	require.False(t, found)
	added, err := b.Add(key, "added", 0)
	require.ErrorIs(t, err, keepcache.ErrCorrupt)
	require.False(t, added)
	_, err = b.Touch(key, time.Hour)
	require.ErrorIs(t, err, keepcache.ErrCorrupt)
	for _, o := range []keepcache.ScanOptions{{Prefix: key}, {Prefix: key, Reverse: true, KeysOnly: true}} {
		seen := false
		for e, err := range b.Scan(&o) {
			if e.Key == key {
				require.ErrorIs(t, err, keepcache.ErrCorrupt)
				require.Equal(t, keepcache.Entry{Key: key}, e)
				seen = true
			}
		}
		require.True(t, seen, "iteration leaves out the damaged entry")
	}
}

// A flipped bit anywhere in a record makes the entry a miss, never another value; Verify reports it, and Set
// and Delete heal it.
func TestDamage_FlippedBits(t *testing.T) {
	path := cachetest.NewPath(t)
	db := cachetest.OpenUnchecked(t, path)
	b := db.Bucket("b")
	const value = "a value of some length"
	const size = 35 + 1 + len(value) + 4
	cachetest.Fill(t, b, size*8, time.Hour)
	for i := range size * 8 {
		cachetest.MustSet(t, b, cachetest.Numbered(i), value, 10*time.Hour)
	}
	cachetest.MustSet(t, b, "sound", value, time.Hour)
	require.NoError(t, db.Close())
	cachetest.WithBolt(t, path, false, func(tx *bolt.Tx) error {
		b, _ := cachetest.EntryBucket(tx, "b")
		for i := range size * 8 {
			stored := bytes.Clone(b.Get([]byte(cachetest.Numbered(i))))
			require.Len(t, stored, cachetest.StoredRecord+size)
			stored[cachetest.StoredRecord+i/8] ^= 1 << (i % 8)
			if err := b.Put([]byte(cachetest.Numbered(i)), stored); err != nil {
				return err
			}
		}
		return nil
	})

	db = cachetest.Open(t, path, &keepcache.Options{SweepInterval: -1})
	b = db.Bucket("b")
	report, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.False(t, report.OK())
	require.Len(t, report.Problems, keepcache.MaxProblems)
	require.Equal(t, size*8, len(report.Problems)+report.More)
	require.Equal(t, "b", report.Problems[0].Bucket)
	require.Equal(t, cachetest.Numbered(0), report.Problems[0].Key)
	require.ErrorIs(t, report.Problems[0].Err, keepcache.ErrCorrupt)
	require.Contains(t, report.Problems[0].String(), cachetest.Numbered(0))

	n, err := b.Len()
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for i := range size * 8 {
		requireDamaged(t, b, cachetest.Numbered(i))
		if i%2 == 0 {
			cachetest.MustSet(t, b, cachetest.Numbered(i), "healed", time.Hour)
			cachetest.RequireValue(t, b, cachetest.Numbered(i), "healed")
			continue
		}
		found, err := b.Delete(cachetest.Numbered(i))
		require.NoError(t, err)
		require.False(t, found)
		cachetest.RequireAbsent(t, b, cachetest.Numbered(i))
	}
	cachetest.RequireValue(t, b, "sound", value)
	require.GreaterOrEqual(t, db.Stats().Damaged, uint64(size*8))
	cachetest.Sound(t, db)
	require.Equal(t, int64(size*4+1), db.Stats().Entries)
}

// Records that no version of ours wrote are damage, even with the right checksum: the reason is reported.
func TestDamage_Records(t *testing.T) {
	option := func(kind byte, data string) func([]byte) []byte {
		return func(s []byte) []byte {
			o := append([]byte{kind, 0, byte(len(data))}, data...)
			binary.BigEndian.PutUint16(s[cachetest.StoredOptions:], uint16(len(o)))
			return append(append(bytes.Clone(s[:cachetest.StoredValue]), o...), s[cachetest.StoredValue:]...)
		}
	}
	value := func(encoded string) func([]byte) []byte {
		return func(s []byte) []byte {
			return append(append(bytes.Clone(s[:cachetest.StoredValue]), encoded...), 0, 0, 0, 0)
		}
	}
	zero := func(at int) func([]byte) []byte {
		return func(s []byte) []byte { clear(s[at : at+8]); return s }
	}
	unsealed := func(n int) func([]byte) []byte { return func(s []byte) []byte { return s[:n] } }
	for name, c := range map[string]struct {
		change func([]byte) []byte
		seal   bool
		reason string
	}{
		"unknown version": {func(s []byte) []byte { s[cachetest.StoredRecord] = 2; return s }, true,
			"unknown version 2"},
		"must-refuse option": {option(0x80, ""), true, "unknown option 0x80"},
		"highest option":     {option(0xff, "data"), true, "unknown option 0xff"},
		"options too long": {func(s []byte) []byte { s[cachetest.StoredOptions] = 0xff; return s }, true,
			"malformed options"},
		"option cut short": {func(s []byte) []byte { s[cachetest.StoredOptions+1] = 2; return s }, true,
			"malformed options"},
		"no revision":            {zero(cachetest.StoredRevision), true, "no revision"},
		"gone before stale":      {zero(cachetest.StoredGoneAt), true, "gone before"},
		"no value":               {value(""), true, ""},
		"reserved msgpack":       {value("\xc1"), true, ""},
		"array of 4 billion":     {value("\xdd\xff\xff\xff\xff"), true, ""},
		"string beyond the end":  {value("\xdb\x7f\xff\xff\xff"), true, ""},
		"two values":             {value("\x01\x02"), true, ""},
		"map with integer keys":  {value("\x81\x01\x02"), true, ""},
		"nesting without end":    {value(strings.Repeat("\x91", 5000)), true, ""},
		"NaN":                    {value("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"), true, ""},
		"record of another key":  {func(s []byte) []byte { return seal(s, "b", "another") }, false, "checksum"},
		"of another bucket":      {func(s []byte) []byte { return seal(s, "another", "k") }, false, "checksum"},
		"empty":                  {unsealed(0), false, "cut short"},
		"less than an index row": {unsealed(7), false, "cut short"},
		"an index row alone":     {unsealed(8), false, "cut short"},
		"half a header":          {unsealed(30), false, "cut short"},
		"no value and no sum":    {unsealed(cachetest.StoredValue), false, "cut short"},
		"a value cut short":      {unsealed(cachetest.StoredValue + 10), false, "checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := cachetest.NewPath(t)
			db := cachetest.OpenUnchecked(t, path)
			cachetest.MustSet(t, db.Bucket("b"), "k", "some value or other", 0)
			require.NoError(t, db.Close())
			cachetest.Patch(t, path, "b", "k", func(s []byte) []byte {
				if s = c.change(s); c.seal {
					s = seal(s, "b", "k")
				}
				return s
			})
			db = cachetest.Open(t, path, nil)
			report, err := db.Verify(context.Background())
			require.NoError(t, err)
			require.NotEmpty(t, report.Problems)
			require.ErrorIs(t, report.Problems[0].Err, keepcache.ErrCorrupt)
			require.ErrorContains(t, report.Problems[0].Err, c.reason)
			requireDamaged(t, db.Bucket("b"), "k")
			// The cache counts what it removes, and the test has changed sizes behind its back: heal by Clear.
			require.NoError(t, db.Bucket("b").Clear(context.Background()))
			_, err = db.Sweep(context.Background())
			require.NoError(t, err)
			cachetest.Sound(t, db)
		})
	}
}

// An option that a reader may skip is skipped.
func TestDamage_HarmlessOption(t *testing.T) {
	path := cachetest.NewPath(t)
	db := cachetest.OpenUnchecked(t, path)
	cachetest.MustSet(t, db.Bucket("b"), "k", "value", time.Hour)
	require.NoError(t, db.Close())
	cachetest.Patch(t, path, "b", "k", func(s []byte) []byte {
		options := "\x01\x00\x02ab\x7f\x00\x00"
		binary.BigEndian.PutUint16(s[cachetest.StoredOptions:], uint16(len(options)))
		return seal(append(append(bytes.Clone(s[:cachetest.StoredValue]), options...), s[cachetest.StoredValue:]...), "b",
			"k")
	})
	db = cachetest.OpenDamaged(t, path, nil) // the counts of bytes are off
	cachetest.RequireValue(t, db.Bucket("b"), "k", "value")
	entry, found, err := db.Bucket("b").Stat("k")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, 6, entry.Size, "options are no part of the value")
}

// A damaged index row hides nothing and harms no value; Verify reports it, and Set and Delete with the next
// sweep heal it.
func TestDamage_IndexRow(t *testing.T) {
	for name, heal := range map[string]func(t *testing.T, b *keepcache.Bucket, key string){
		"set later": func(t *testing.T, b *keepcache.Bucket,
			key string) {
			cachetest.MustSet(t, b, key, "v", 20*time.Hour)
		},
		"set earlier": func(t *testing.T, b *keepcache.Bucket, key string) { cachetest.MustSet(t, b, key, "v", time.Hour) },
		"set forever": func(t *testing.T, b *keepcache.Bucket, key string) {
			cachetest.MustSet(t, b, key, "v", keepcache.NoExpiry)
		},
		"delete": func(t *testing.T, b *keepcache.Bucket, key string) { _, err := b.Delete(key); require.NoError(t, err) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				path := cachetest.NewPath(t)
				db := cachetest.OpenUnchecked(t, path)
				cachetest.Fill(t, db.Bucket("b"), 64, 5*time.Hour)
				ttl := func(i int) time.Duration { return []time.Duration{5, 10, 2}[i%3] * time.Hour }
				for i := range 64 { // a third keeps its row, a third leaves it behind, a third moves it
					cachetest.MustSet(t, db.Bucket("b"), cachetest.Numbered(i), i, ttl(i))
				}
				require.NoError(t, db.Close())
				cachetest.WithBolt(t, path, false, func(tx *bolt.Tx) error {
					b, _ := cachetest.EntryBucket(tx, "b")
					for i := range 64 {
						stored := bytes.Clone(b.Get([]byte(cachetest.Numbered(i))))
						stored[i/8] ^= 1 << (i % 8)
						if err := b.Put([]byte(cachetest.Numbered(i)), stored); err != nil {
							return err
						}
					}
					return nil
				})
				db = cachetest.OpenDamaged(t, path, &keepcache.Options{SweepInterval: -1})
				report, err := db.Verify(t.Context())
				require.NoError(t, err)
				require.GreaterOrEqual(t, len(report.Problems)+report.More, 64)
				b := db.Bucket("b")
				for i := range 64 {
					cachetest.RequireValue(t, b, cachetest.Numbered(i), int64(i))
					cachetest.RequireTTL(t, b, cachetest.Numbered(i), ttl(i))
					heal(t, b, cachetest.Numbered(i))
				}
				time.Sleep(30 * time.Hour) // past every deadline and every sound row
				_, err = db.Sweep(t.Context())
				require.NoError(t, err)
				report, err = db.Verify(t.Context())
				require.NoError(t, err)
				require.True(t, report.OK(), "%v", report.Problems)
				if name != "set forever" {
					require.Zero(t, report.Entries, "entries that no sweep will ever find")
				}
			})
		})
	}
}

// Counts that cannot be true cost no entry: opening counts anew. Ids are not given out twice, whatever the table says.
func TestDamage_Counts(t *testing.T) {
	for name, count := range map[string]uint64{"huge": 1 << 50, "negative": 1 << 63, "overflowing": 1<<63 - 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := cachetest.NewPath(t)
			db := cachetest.OpenUnchecked(t, path)
			cachetest.Fill(t, db.Bucket("b"), 100, time.Hour)
			cachetest.MustSet(t, db.Bucket("c"), "k", "v", 0)
			require.NoError(t, db.Close())
			cachetest.WithBolt(t, path, false, func(tx *bolt.Tx) error {
				_, id := cachetest.EntryBucket(tx, "b")
				row := append(binary.BigEndian.AppendUint64(nil, 100), binary.BigEndian.AppendUint64(nil, count)...)
				return errors.Join(tx.Bucket([]byte("usage")).Put(id, row), tx.Bucket([]byte("buckets")).SetSequence(0))
			})
			db = cachetest.Open(t, path, nil) // whose end proves the counts
			cachetest.MustSet(t, db.Bucket("new"), "k", "new", 0)
			cachetest.Committed(t, db)
			n, err := db.Bucket("b").Len()
			require.NoError(t, err)
			require.Equal(t, 100, n)
			cachetest.RequireValue(t, db.Bucket("c"), "k", "v")
			cachetest.RequireValue(t, db.Bucket("new"), "k", "new")
		})
	}
}

// Two names that lead to one bucket are told apart by its records, and the other one is empty.
func TestDamage_SharedID(t *testing.T) {
	for _, wrong := range []string{"a", "c"} {
		path := cachetest.NewPath(t)
		db := cachetest.OpenUnchecked(t, path)
		for _, name := range []string{"a", "b", "c"} {
			cachetest.MustSet(t, db.Bucket(name), "k", name, 0)
		}
		require.NoError(t, db.Close())
		cachetest.WithBolt(t, path, false, func(tx *bolt.Tx) error {
			_, id := cachetest.EntryBucket(tx, "b")
			return tx.Bucket([]byte("buckets")).Put([]byte(wrong), id)
		})
		for _, readOnly := range []bool{true, false} {
			db = cachetest.OpenDamaged(t, path, &keepcache.Options{ReadOnly: readOnly})
			cachetest.RequireValue(t, db.Bucket("b"), "k", "b")
			cachetest.RequireAbsent(t, db.Bucket(wrong), "k")
			if !readOnly {
				cachetest.MustSet(t, db.Bucket(wrong), "k", "new", 0)
				cachetest.Committed(t, db)
				cachetest.Sound(t, db)
			}
			require.NoError(t, db.Close())
		}
		db = cachetest.Open(t, path, nil)
		cachetest.RequireValue(t, db.Bucket("b"), "k", "b")
		cachetest.RequireValue(t, db.Bucket(wrong), "k", "new")
	}
}

// A name in the file that leads to the id which the journal gives another bucket is empty too.
func TestDamage_SharedJournalID(t *testing.T) {
	for _, wrong := range []string{"a", "c"} {
		path := cachetest.NewPath(t)
		db := cachetest.Open(t, path, &keepcache.Options{CommitInterval: time.Hour})
		cachetest.MustSet(t, db.Bucket("a"), "k", "a", 0)
		cachetest.MustSet(t, db.Bucket("c"), "k", "c", 0)
		cachetest.Committed(t, db)
		cachetest.MustSet(t, db.Bucket("b"), "k", "b", 0)
		cachetest.MustSet(t, db.Bucket("d"), "k", "d", 0)
		path = cachetest.CrashCopy(t, path, cachetest.NewPath(t))
		cachetest.WithBolt(t, path, false, func(tx *bolt.Tx) error {
			table := tx.Bucket([]byte("buckets"))
			return table.Put([]byte(wrong), binary.BigEndian.AppendUint64(nil, table.Sequence()+1))
		})
		for _, options := range []keepcache.Options{{ReadOnly: true}, {}, {}} {
			db = cachetest.OpenDamaged(t, path, &options)
			cachetest.RequireValue(t, db.Bucket("b"), "k", "b")
			cachetest.RequireValue(t, db.Bucket("d"), "k", "d")
			if !options.ReadOnly {
				cachetest.RequireAbsent(t, db.Bucket(wrong), "d")
				cachetest.MustSet(t, db.Bucket(wrong), "new", "new", 0)
				cachetest.RequireAbsent(t, db.Bucket("b"), "new")
				_, err := db.Bucket(wrong).Delete("new")
				require.NoError(t, err)
			}
			cachetest.RequireAbsent(t, db.Bucket(wrong), "k")
			require.NoError(t, db.Close())
		}
		db = cachetest.Open(t, path, nil)
		cachetest.RequireValue(t, db.Bucket("b"), "k", "b")
		cachetest.RequireAbsent(t, db.Bucket(wrong), "k")
	}
}

// A revision or an id near the end of the numbers is damage: the next one would be 0.
func TestDamage_Numbers(t *testing.T) {
	for name, change := range map[string]func(tx *bolt.Tx) error{
		"mark": func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("sequence"), binary.BigEndian.AppendUint64(nil, 1<<64-1))
		},
		"id": func(tx *bolt.Tx) error { return tx.Bucket([]byte("buckets")).SetSequence(1<<64 - 1) },
	} {
		t.Run(name, func(t *testing.T) {
			path := cachetest.NewPath(t)
			require.NoError(t, cachetest.OpenUnchecked(t, path).Close())
			cachetest.WithBolt(t, path, false, change)
			_, err := cachetest.TryOpen(path, &keepcache.Options{OnCorruption: keepcache.CorruptionFail})
			cachetest.RequireError(t, err, keepcache.ErrCorrupt, "open", path)
		})
	}
}

// Verify reports a broken index, broken counts and a broken table of buckets, each by what is wrong.
func TestVerify_Problems(t *testing.T) {
	row := func(at time.Duration, id []byte, key string) []byte {
		k := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(at).UnixMilli()))
		return append(append(k, id...), key...)
	}
	for want, damage := range map[string]func(tx *bolt.Tx, id []byte) error{
		"malformed row": func(tx *bolt.Tx, _ []byte) error { return tx.Bucket([]byte("expiry")).Put([]byte("short"), nil) },
		"no entry owns": func(tx *bolt.Tx, id []byte) error {
			return tx.Bucket([]byte("expiry")).Put(row(time.Hour, id, "nobody"), nil)
		},
		"index row is damaged": func(tx *bolt.Tx, _ []byte) error {
			b, _ := cachetest.EntryBucket(tx, "b")
			return b.Put([]byte("k"), append(make([]byte, 8), b.Get([]byte("k"))[cachetest.StoredRecord:]...))
		},
		"in bucket id 99": func(tx *bolt.Tx, _ []byte) error {
			return tx.Bucket([]byte("expiry")).Put(row(time.Hour, []byte{0, 0, 0, 0, 0, 0, 0, 99}, "k"), nil)
		},
		"expiry row is missing": func(tx *bolt.Tx, _ []byte) error {
			k, _ := tx.Bucket([]byte("expiry")).Cursor().First()
			return tx.Bucket([]byte("expiry")).Delete(bytes.Clone(k))
		},
		"has a lifetime but no expiry row": func(tx *bolt.Tx, _ []byte) error {
			b, _ := cachetest.EntryBucket(tx, "b")
			stored := bytes.Clone(b.Get([]byte("k")))
			return b.Put([]byte("k"), append(indexRow(1<<48-1, "k"), stored[cachetest.StoredRecord:]...))
		},
		"later than the time it is gone": func(tx *bolt.Tx, id []byte) error {
			b, _ := cachetest.EntryBucket(tx, "b")
			stored := bytes.Clone(b.Get([]byte("k")))
			later := row(100*time.Hour, id, "k")
			if err := tx.Bucket([]byte("expiry")).Put(later, nil); err != nil {
				return err
			}
			return b.Put([]byte("k"), append(indexRow(binary.BigEndian.Uint64(later), "k"), stored[cachetest.StoredRecord:]...))
		},
		"the file counts": func(tx *bolt.Tx, id []byte) error {
			return tx.Bucket([]byte("usage")).Put(id, append(binary.BigEndian.AppendUint64(nil, 7), 0, 0, 0, 0, 0, 0, 0, 1))
		},
		"keeps no count": func(tx *bolt.Tx, id []byte) error { return tx.Bucket([]byte("usage")).Delete(id) },
		"shares id":      func(tx *bolt.Tx, id []byte) error { return tx.Bucket([]byte("buckets")).Put([]byte("twin"), id) },
		"never given out": func(tx *bolt.Tx, _ []byte) error {
			return tx.Bucket([]byte("buckets")).Put([]byte("future"), []byte{0, 0, 0, 0, 0, 0, 1, 0})
		},
		"beyond the cache's last": func(tx *bolt.Tx, _ []byte) error {
			return errors.Join(
				tx.Bucket([]byte("meta")).Put([]byte("sequence"), make([]byte, 8)),
				tx.Bucket([]byte("meta")).Delete([]byte("highest")))
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			path := cachetest.NewPath(t)
			db := cachetest.OpenUnchecked(t, path)
			cachetest.MustSet(t, db.Bucket("b"), "k", "v", time.Hour)
			require.NoError(t, db.Close())
			cachetest.WithBolt(t, path, false, func(tx *bolt.Tx) error {
				_, id := cachetest.EntryBucket(tx, "b")
				return damage(tx, id)
			})
			db = cachetest.OpenDamaged(t, path, &keepcache.Options{ReadOnly: true})
			report, err := db.Verify(context.Background())
			require.NoError(t, err)
			require.False(t, report.OK())
			require.Contains(t, fmt.Sprint(report.Problems), want)
		})
	}
}

// The sweeper takes rows that no entry owns away and counts them, and goes on past damaged entries.
func TestSweep_Damage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := cachetest.NewPath(t)
		db := cachetest.OpenUnchecked(t, path)
		cachetest.Fill(t, db.Bucket("b"), 300, time.Hour)
		require.NoError(t, db.Close())
		cachetest.WithBolt(t, path, false, func(tx *bolt.Tx) error {
			expiry := tx.Bucket([]byte("expiry"))
			for _, row := range []string{"", "\x00", strings.Repeat("\x00", 16), strings.Repeat("\x00", 17),
				strings.Repeat("\x00", 40)} {
				if row != "" {
					if err := expiry.Put([]byte(row), nil); err != nil {
						return err
					}
				}
			}
			b, _ := cachetest.EntryBucket(tx, "b")
			for i := range 200 { // some with a broken deadline, some cut short
				stored := bytes.Clone(b.Get([]byte(cachetest.Numbered(i))))
				stored[cachetest.StoredRecord+i%(len(stored)-cachetest.StoredRecord)] ^= byte(1 + i)
				if i%10 == 9 {
					stored = stored[:20]
				}
				if err := b.Put([]byte(cachetest.Numbered(i)), stored); err != nil {
					return err
				}
			}
			return nil
		})
		db = cachetest.OpenDamaged(t, path, &keepcache.Options{SweepInterval: -1})
		time.Sleep(time.Hour)
		_, err := db.Sweep(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(4), db.Stats().Sweep.Orphans)
		n, err := db.Bucket("b").Len()
		require.NoError(t, err)
		require.Zero(t, n)
		for i := range 300 {
			found, err := db.Bucket("b").Exists(cachetest.Numbered(i))
			require.NoError(t, err)
			require.False(t, found)
		}
		_, err = db.Bucket("b").DeletePrefix(t.Context(), "")
		require.NoError(t, err)
		report, err := db.Verify(t.Context())
		require.NoError(t, err)
		require.Zero(t, report.Entries)
	})
}

// Verify proves the table of tags: its rows, their number, and that no revision in it is from the future.
func TestVerify_Tags(t *testing.T) {
	for want, damage := range map[string]func(tags, meta *bolt.Bucket) error{
		`the table of tags has a malformed row for "short"`: func(tags, _ *bolt.Bucket) error {
			return errors.Join(tags.Put([]byte("short"), []byte("1234567")), tags.SetSequence(tags.Sequence()+1))
		},
		"the table of tags has a malformed row for": func(tags, _ *bolt.Bucket) error {
			return errors.Join(tags.Put(bytes.Repeat([]byte("x"), 256), make([]byte, 8)), tags.SetSequence(tags.Sequence()+1))
		},
		`at which tag "t" was invalidated is beyond the cache's last`: func(tags, _ *bolt.Bucket) error {
			return tags.Put([]byte("t"), binary.BigEndian.AppendUint64(nil, 1<<40))
		},
		"at which every tag counts as invalidated is beyond the cache's last": func(_, meta *bolt.Bucket) error {
			return meta.Put([]byte("tagfloor"), binary.BigEndian.AppendUint64(nil, 1<<40))
		},
		"the table of tags counts 5 rows, there are 2": func(tags, _ *bolt.Bucket) error { return tags.SetSequence(5) },
	} {
		path := cachetest.NewPath(t)
		db := cachetest.OpenUnchecked(t, path)
		cachetest.MustSet(t, db.Bucket("b").WithTags("other"), "k", 1, 0)
		cachetest.MustSet(t, db.Bucket("b"), "untagged", 1, 0)
		for _, tag := range []string{"t", "u"} {
			require.NoError(t, db.InvalidateTags(tag))
		}
		cachetest.Sound(t, db)
		require.NoError(t, db.Close())
		cachetest.WithBolt(t, path, false,
			func(tx *bolt.Tx) error { return damage(tx.Bucket([]byte("tags")), tx.Bucket([]byte("meta"))) })
		mended := strings.Contains(want, "malformed")
		for _, readOnly := range []bool{true, false} {
			db := cachetest.OpenDamaged(t, path, &keepcache.Options{ReadOnly: readOnly})
			report, err := db.Verify(t.Context())
			require.NoError(t, err)
			if mended && !readOnly {
				require.True(t, report.OK(), report.Problems)
			} else {
				require.Len(t, report.Problems, 1, want)
				require.Contains(t, report.Problems[0].String(), want)
			}
			require.NoError(t, db.Close())
		}
		if mended {
			db := cachetest.Open(t, path, nil)
			cachetest.RequireAbsent(t, db.Bucket("b"), "k") // whichever tag the row was for
			cachetest.RequireValue(t, db.Bucket("b"), "untagged", int64(1))
			cachetest.MustSet(t, db.Bucket("b").WithTags("other"), "k", 2, 0)
			db = cachetest.Reopen(t, db, path, nil)
			cachetest.RequireValue(t, db.Bucket("b"), "k", int64(2))
		}
	}
}
