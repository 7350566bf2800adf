package keepcache

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/format"
)

// A write that is taken back takes its key along, in whose memory its record is.
func TestMemory_Retract(t *testing.T) {
	m := newMemory(1 << 20)
	old, record := cloneKey("key"), []byte("old")
	hash := m.hash(1, old)
	m.publish(hash, 1, old, record, format.Header{Revision: 1})
	pinned := m.pinned.Load()

	d := draft{id: 1, hash: hash, key: cloneKey("key"), stored: make([]byte, 100), header: format.Header{Revision: 2}}
	d.before = m.publish(hash, 1, d.key, d.stored, d.header)
	require.True(t, m.retractable(&d))
	m.retract(&d)
	e := m.shardOf(hash).table.find(hash, 1, "key")
	require.Equal(t, record, e.stored)
	require.Same(t, unsafe.StringData(old), unsafe.StringData(e.key))
	require.Equal(t, pinned, m.pinned.Load())
}
