package keepcache_test

import (
	"testing"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/torture/cachetest"
)

func TestMain(m *testing.M) { cachetest.Main(m) }

// The tests of this package open caches, and look at them, through package cachetest, as those of internal/torture do,
// which break them. Here its helpers have short names.
type tester = cachetest.Tester

var (
	long  = cachetest.Long  // asks for the full counts, which take minutes
	raced = cachetest.Raced // says that the race detector is on

	open          = cachetest.Open
	openDamaged   = cachetest.OpenDamaged
	openUnchecked = cachetest.OpenUnchecked
	tryOpen       = cachetest.TryOpen
	reopen        = cachetest.Reopen
	newPath       = cachetest.NewPath
	newDB         = cachetest.New
	fill          = cachetest.Fill
	numbered      = cachetest.Numbered
	committed     = cachetest.Committed
	awaitHealed   = cachetest.AwaitHealed
	skipOnWindows = cachetest.SkipOnWindows

	checkFile        = cachetest.CheckFile
	sound            = cachetest.Sound
	mustSet          = cachetest.MustSet
	requireValue     = cachetest.RequireValue
	requireAbsent    = cachetest.RequireAbsent
	requireTTL       = cachetest.RequireTTL
	requireError     = cachetest.RequireError
	requireLoadError = cachetest.RequireLoadError
	keys             = cachetest.Keys

	withBolt    = cachetest.WithBolt
	entryBucket = cachetest.EntryBucket
	patch       = cachetest.Patch
	snapshot    = cachetest.Snapshot
	fileSize    = cachetest.FileSize
	crashCopy   = cachetest.CrashCopy
	crashed     = cachetest.Crashed
	breakFile   = cachetest.BreakFile

	children     = cachetest.Children
	childCommand = cachetest.ChildCommand
	startChild   = cachetest.StartChild
)

// Offsets in what the file stores for an entry.
const (
	storedRecord = cachetest.StoredRecord
	storedValue  = cachetest.StoredValue
)

// update is Bucket.Update with the lifetime of the entry, for tests that care only about whether it works.
func update(b *keepcache.Bucket, key string, fn func(old keepcache.Entry, found bool) (any, error)) error {
	_, err := b.Update(key, fn, keepcache.KeepTTL)
	return err
}

// compareAndSwap is Bucket.CompareAndSwap with the lifetime of the entry, without the new one.
func compareAndSwap(b *keepcache.Bucket, key string, revision uint64, value any) (swapped bool, err error) {
	_, swapped, err = b.CompareAndSwap(key, revision, value, keepcache.KeepTTL)
	return swapped, err
}
