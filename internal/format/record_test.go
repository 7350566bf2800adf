package format

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"time"
)

// allocated returns how many bytes fn allocates. Other goroutines must be quiet.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// fuzzRoom is what a fuzz target may allocate beside 64 times its input, in bytes: the fuzzing engine allocates too.
const fuzzRoom = 64 << 10

// FuzzRecord reads anything as a record: as it is, which its checksum refuses, and with a checksum that is right, so
// that what lies behind it is reached.
func FuzzRecord(f *testing.F) {
	now := time.Now()
	plain := Frame(Header{ExpiresAt: Never, StaleUntil: Never, WrittenAt: Millis(now)}, &Options{}, []byte("\xa1v"))
	rich := Frame(Header{ExpiresAt: 5, StaleUntil: 9, WrittenAt: 1}, &Options{}, bytes.Repeat([]byte("v"), 100))
	for _, rec := range [][]byte{nil, {RecordVersion}, plain, rich, append([]byte{RecordVersion}, make([]byte, 60)...)} {
		f.Add(rec, "key", true)
		f.Add(rec, "", false)
	}
	for kind := range byte(12) {
		options := bytes.Clone(plain[:HeaderSize])
		binary.BigEndian.PutUint16(options[33:], 7)
		f.Add(append(options, kind, 0, 4, 1, 0, 1, 'x', 0xc0, 0, 0, 0, 0), "key", true)
	}
	f.Fuzz(func(t *testing.T, rec []byte, key string, sealed bool) {
		sum := BucketSum("bucket")
		if sealed && len(rec) >= HeaderSize+TrailerSize {
			rec = bytes.Clone(rec)
			rec[0] = RecordVersion
			Seal(rec, sum, key, max(binary.BigEndian.Uint64(rec[25:]), 1))
		}
		used := allocated(func() {
			h, value, err := Open(rec, sum, key)
			if err != nil {
				return
			}
			if h.StaleUntil < h.ExpiresAt || h.Revision == 0 || len(value) > len(rec) {
				t.Errorf("%+v with a value of %d bytes was taken from %d", h, len(value), len(rec))
			}
			read := ReadOptions(OptionBytes(rec))
			tags := read.Tags.Strings()
			size := 0
			for _, tag := range tags {
				size += len(tag)
			}
			if size > len(rec) {
				t.Errorf("tags of %d bytes were taken from %d", size, len(rec))
			}
			if other, _, err := Open(rec, sum, key+"x"); err == nil {
				t.Errorf("it passes under another key: %+v", other)
			}
		})
		if most := uint64(64*(len(rec)+len(key)) + fuzzRoom); used > most {
			t.Errorf("%d bytes allocated for %d", used, len(rec))
		}
	})
}

// FuzzOps reads anything as a log record.
func FuzzOps(f *testing.F) {
	rec := Frame(Header{ExpiresAt: Never, StaleUntil: Never}, &Options{}, []byte("\xa1v"))
	var all []byte
	for _, o := range []Op{
		{Kind: OpPut, ID: 1, Key: "k", Record: rec}, {Kind: OpDelete, ID: 300, Key: "k"},
		{Kind: OpBucket, ID: 2, Key: "name"}, {Kind: OpInvalidate, Key: "tag"},
	} {
		record := append(AppendOp(nil, &o), o.Record...)
		f.Add(record)
		all = append(all, record...)
	}
	f.Add(all)
	f.Add([]byte{byte(OpPut), 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, record []byte) {
		used := allocated(func() {
			size, last := 0, uint64(6)
			err := EachOp(7, record, func(o Op, revision uint64) error {
				if revision != last+1 {
					t.Errorf("revision %d follows %d", revision, last)
				}
				last = revision
				size += len(o.Key) + len(o.Record)
				if o.Kind == OpPut {
					_ = ReadHeader(o.Record)
				}
				again := append(AppendOp(nil, &o), o.Record...)
				if back, rest, err := NextOp(again); err != nil || len(rest) > 0 || back.Key != o.Key || back.ID != o.ID {
					t.Errorf("%+v comes back as %+v: %v", o, back, err)
				}
				return nil
			})
			if err == nil && size > len(record) {
				t.Errorf("%d bytes were taken from %d", size, len(record))
			}
		})
		if most := uint64(64*len(record) + fuzzRoom); used > most {
			t.Errorf("%d bytes allocated for %d", used, len(record))
		}
	})
}
