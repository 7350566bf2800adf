package inspect

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

func ranked(limit int) int {
	if limit == 0 {
		return defaultRanked
	}
	return min(limit, mostRanked)
}

func (s *server) biggest(v *visit) (any, error) {
	q, err := s.query(v.r)
	if err != nil {
		return nil, err
	}
	names := []string{q.bucket}
	if q.bucket == "" {
		names, err = s.db.Buckets()
	}
	page := wire.Keys{}
	top, begun, looked := ranking{most: ranked(q.limit), entryOf: s.entryOf}, time.Now(), 0
	for _, name := range names {
		if page.Partial = page.Partial || time.Since(begun) > biggestTime; err != nil || page.Partial {
			break
		}
		if err := v.ctx.Err(); err != nil {
			return nil, err
		}
		for e, err := range s.db.Bucket(name).All() {
			page.Looked++
			switch {
			case errors.Is(err, keepcache.ErrCorrupt) && e.Key != "":
				page.Damaged++
			case err != nil:
				return nil, err
			default:
				top.add(name, e)
			}
			if looked += lookBytes/lookEvery + e.Size; looked >= lookBytes {
				looked = 0
				if err := v.ctx.Err(); err != nil {
					return nil, err
				}
				if page.Partial = time.Since(begun) > biggestTime; page.Partial {
					break
				}
			}
		}
	}
	page.Entries = []wire.Entry{}
	for bytes := 0; len(top.entries) > 0; top.entries = top.entries[1:] {
		if bytes += namesSize(&top.entries[0]); bytes > pageBytes {
			page.Partial = true
			break
		}
		page.Entries = append(page.Entries, top.entries[0])
	}
	return page, err
}

// ranking holds the entries with the largest values, the largest first.
type ranking struct {
	most    int
	entryOf func(bucket string, e keepcache.Entry) wire.Entry
	entries []wire.Entry
}

func (k *ranking) add(bucket string, e keepcache.Entry) {
	if n := len(k.entries); n == k.most {
		if e.Size <= k.entries[n-1].Size {
			return
		}
		k.entries = k.entries[:n-1]
	}
	at, _ := slices.BinarySearchFunc(k.entries, e.Size, func(w wire.Entry, size int) int {
		if w.Size == size {
			return -1
		}
		return cmp.Compare(size, w.Size)
	})
	k.entries = slices.Insert(k.entries, at, k.entryOf(bucket, e))
}
