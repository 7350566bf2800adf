package keepcache

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/journal"
)

// A commit was cut in two, so that the file has the later outcome of a key, and the journal has lost that one and has
// an earlier one: the later one stays.
func TestReplay_Newer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.cache")
	db, err := Open(path, nil)
	require.NoError(t, err)
	require.NoError(t, db.Bucket("b").Set("a", 1, 0))
	require.NoError(t, db.Close())

	s, err := openStore(path, false, time.Second, true)
	require.NoError(t, err)
	mark, _, err := s.revisions()
	require.NoError(t, err)
	seal := func(key string, value any, revision uint64) []byte {
		rec := appendHeader(nil, header{freshUntil: never, goneAt: never})
		rec, _ = appendValue(rec, value, 100)
		rec = appendTrailer(rec)
		sealRecord(rec, nameSum("b"), key, revision)
		return rec
	}
	require.NoError(t, s.apply([]naming{{name: "n", id: 9}}, []*change{
		{id: 1, key: []byte("put"), record: seal("put", "later", mark+9), goneAt: never, revision: mark + 9},
		{id: 1, key: []byte("removed"), record: seal("removed", "later", mark+8), goneAt: never, revision: mark + 8},
	}, mark, nil))
	j, err := journal.New(path+"-journal", journal.Options{Identity: s.identity, After: mark})
	require.NoError(t, err)
	put := func(key string, revision uint64) []byte {
		o := outcome{kind: outcomePut, id: 1, key: key, record: seal(key, "earlier", revision)}
		return append(appendOutcome(nil, &o), o.record...)
	}
	require.NoError(t, j.Append(mark+1, mark+1, put("put", mark+1)))
	require.NoError(t, j.Append(mark+2, mark+2, appendOutcome(nil, &outcome{kind: outcomeRemove, id: 1, key: "removed"})))
	require.NoError(t, j.Append(mark+3, mark+3, put("other", mark+3)))
	require.NoError(t, j.Append(mark+4, mark+4, appendOutcome(nil, &outcome{kind: outcomeName, id: 5, key: "n"})))
	require.NoError(t, j.Close(false))
	require.NoError(t, s.close())

	db, err = Open(path, nil)
	require.NoError(t, err)
	for key, want := range map[string]string{"put": "later", "removed": "later", "other": "earlier"} {
		var got string
		_, err := db.Bucket("b").Get(key, &got)
		require.NoError(t, err)
		require.Equal(t, want, got, key)
	}
	require.Equal(t, uint64(9), db.namespace("n").id.Load())
	report, err := db.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.NoError(t, db.Close())
}
