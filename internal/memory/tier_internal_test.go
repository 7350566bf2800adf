package memory

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/format"
)

// Retract restores the key too: its memory also holds the record.
func TestMemory_Retract(t *testing.T) {
	m := New(1 << 20)
	old, record := strings.Clone("key"), []byte("old")
	hash := m.Hash(1, old)
	m.Publish(hash, 1, old, record, format.Header{Revision: 1}, 0)
	pinned := m.pinned.Load()

	before := m.Publish(hash, 1, strings.Clone("key"), make([]byte, 100), format.Header{Revision: 2}, 0)
	require.True(t, m.Retractable(hash, 1, "key", 2))
	m.Retract(hash, 1, "key", &before)
	e := m.ShardOf(hash).table.find(hash, 1, "key")
	require.Equal(t, record, e.stored)
	require.Same(t, unsafe.StringData(old), unsafe.StringData(e.key))
	require.Equal(t, pinned, m.pinned.Load())
}
