package journal_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

// goldenRecords are what the golden journals hold: some that were released and overwritten, some that were flushed, and
// some at the end that were not. The last ones of version 2 are in its window alone.
func goldenRecords() (records []record) {
	for seq := uint64(1); seq <= 40; seq++ {
		records = append(records, record{2*seq - 1, 2 * seq, content(seq, int(seq*seq*7)%1800)})
	}
	return records
}

const goldenReleased = 60

func golden(version string) string { return filepath.Join("testdata", "golden", version+".journal") }

// A journal that a crash left is replayed by every later version of this program.
func TestGolden(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			got, r := replay(t, golden(version), goldenReleased)
			requireClean(t, r)
			requireSame(t, above(goldenRecords(), goldenReleased), got)
			require.Equal(t, uint64(70), r.Flushed)
			require.Equal(t, uint64(goldenReleased), r.Released)
		})
	}
}

// KEEPCACHE_GOLDEN makes the files of a version that has none. Those that are there never change.
func TestGolden_Make(t *testing.T) {
	if os.Getenv("KEEPCACHE_GOLDEN") == "" {
		t.Skip("only makes files")
	}
	for version, o := range map[string]journal.Options{"v1": modes["pwrite"], "v2": modes["window"]} {
		if _, err := os.Stat(golden(version)); err == nil {
			continue
		}
		o.SegmentBytes, o.MaxBytes = 4096, 48<<10
		path := tempPath(t)
		j := newJournal(t, path, o)
		for _, p := range goldenRecords() {
			require.NoError(t, j.Append(p.first, p.last, p.data))
			if p.last == 70 {
				require.NoError(t, j.Flush(70))
			}
			if p.last%20 == 0 {
				j.Release(min(p.last, goldenReleased))
			}
		}
		image, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(golden(version)), 0o755))
		require.NoError(t, os.WriteFile(golden(version), image, 0o644))
	}
}
