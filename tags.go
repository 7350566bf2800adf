package keepcache

import (
	"fmt"
	"slices"

	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/format"
)

// Limits of tags.
const (
	MaxTags     = 16  // of one entry
	MaxTagBytes = 255 // of one tag; the least is 1
)

// WithTags returns a handle of the same bucket whose writes give their entries these tags, in the place of any
// that the handle has: Set, SetBytes, SetMany, Add, Swap, Increment and Update where they create, Batch.Set, and
// loads. InvalidateTags makes all entries with a tag absent. Where a tag is empty or longer than MaxTagBytes, or
// there are more than MaxTags, the writes give ErrInvalidTag. Without arguments it returns a handle without tags.
func (b *Bucket) WithTags(tags ...string) *Bucket {
	t := &Bucket{db: b.db, defaultTTL: b.defaultTTL, sliding: b.sliding}
	t.at.Become(&b.at)
	t.tags, t.tagsErr = packTags(tags)
	return t
}

// packTags makes a list of tags, each once and in their byte order.
func packTags(tags []string) (list format.Tags, err error) {
	if len(tags) == 0 {
		return nil, nil
	}
	if !slices.IsSorted(tags) {
		tags = slices.Sorted(slices.Values(tags))
	}
	n, last := 0, ""
	for _, tag := range tags {
		if len(tag) < 1 || len(tag) > MaxTagBytes {
			return nil, fmt.Errorf("%w: %s", ErrInvalidTag, errs.Quote(tag))
		}
		if tag == last {
			continue
		}
		last = tag
		if n++; n > MaxTags {
			return nil, fmt.Errorf("%w: more than %d of them", ErrInvalidTag, MaxTags)
		}
		list = append(append(list, byte(len(tag))), tag...)
	}
	return list, nil
}

// InvalidateTags makes every entry absent that was written before and has one of the tags, in all buckets. It costs one
// write, whatever the number of entries. It is all or nothing: no crash leaves some of the tags invalidated and others
// not. Without tags it does nothing.
//
// A load that is under way has read its source before, so what it brings counts as written when it began. Revisions
// decide the order, never the clock. The sweeper frees the room of the entries later.
func (db *DB) InvalidateTags(tags ...string) error {
	err := db.writable()
	if err == nil {
		for _, tag := range tags {
			if _, err = packTags([]string{tag}); err != nil {
				break
			}
		}
	}
	if err == nil && len(tags) > 0 {
		err = db.engine.InvalidateTags(tags)
	}
	if err != nil {
		return db.fail("invalidate tags", "", err)
	}
	return nil
}
