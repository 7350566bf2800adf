package preflight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/keepcache/keepcache/internal/preflight"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// audit audits a file.
func audit(t testing.TB, b []byte) (preflight.Findings, error) {
	t.Helper()
	f, err := preflight.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return preflight.Findings{}, err
	}
	return f.Audit(context.Background(), layout)
}

// agree requires that an audit finds what a check finds, given its error, and finds nothing where that finds nothing,
// lost pages and the meta pages, at which the check does not look, left aside.
func agree(t testing.TB, b []byte, checked error) {
	t.Helper()
	found, err := audit(t, b)
	var d *preflight.Damage
	if checked != nil && (!errors.As(checked, &d) || err != nil) {
		require.Error(t, err)
		return
	}
	require.NoError(t, err)
	require.Equal(t, checked != nil, len(found.Problems) > others(found), "%v, %v", checked, found.Problems)
	require.LessOrEqual(t, len(found.Problems), 10_000)
	if len(found.Problems) == 0 && found.Free > 0 {
		require.Equal(t, found.Pages, found.Used+found.Free)
	}
}

// others counts the problems for which a check does not look.
func others(found preflight.Findings) (n int) {
	for _, p := range found.Problems {
		if strings.Contains(p.What, "neither in use nor free") || strings.Contains(p.What, "this meta page") {
			n++
		}
	}
	return n
}

// An audit goes on behind damage and finds other damage too; what lies below a damaged page is no damage.
func TestAudit_GoesOn(t *testing.T) {
	p := &patient{t, newPatient(t, true)}
	whole, err := audit(t, p.b)
	require.NoError(t, err)
	require.Empty(t, whole.Problems)
	require.Positive(t, whole.Free)
	require.Equal(t, whole.Pages, whole.Used+whole.Free)

	branch := p.low()
	children := int(native.Uint16(branch[10:]))
	for i := range children { // each leaf of the bucket gets a flag that is none
		child := native.Uint64(branch[16+16*i+8:])
		native.PutUint32(p.b[int(child)*pageSize+16:], 7)
	}
	found, err := audit(t, p.b)
	require.NoError(t, err)
	require.Len(t, found.Problems, children)
	require.Zero(t, found.Lost)
	for i := 1; i < children; i++ {
		require.Greater(t, found.Problems[i].Page, found.Problems[i-1].Page)
	}
}

// A page that is in no tree and in no list is lost, and a problem where there is a list.
func TestAudit_Lost(t *testing.T) {
	p := &patient{t, newPatient(t, true)}
	list := p.list()
	n := native.Uint16(list[10:])
	require.Greater(t, n, uint16(1))
	lost := native.Uint64(p.b[int(native.Uint64(list))*pageSize+16+8*int(n-1):])
	native.PutUint16(list[10:], n-1)
	found, err := audit(t, p.b)
	require.NoError(t, err)
	require.Equal(t, []preflight.Damage{{Page: lost, What: "it is neither in use nor free, as are 1 pages in all"}},
		found.Problems)
	require.Equal(t, uint64(1), found.Lost)

	p = &patient{t, newPatient(t, false)}
	found, err = audit(t, p.b)
	require.NoError(t, err)
	require.Empty(t, found.Problems)
	require.Zero(t, found.Lost)
}

// The number of problems is bounded, and that there are more is said.
func TestAudit_Enough(t *testing.T) {
	b := newPatient(t, true)
	pages := len(b) / pageSize
	more := make([]byte, 20_000*pageSize)
	b = append(b[:pages*pageSize], more...)
	p := &patient{t, b}
	native.PutUint64(p.meta()[40:], uint64(len(b)/pageSize))
	list := p.list()
	native.PutUint16(list[10:], math.MaxUint16)
	native.PutUint32(list[12:], 15_000) // and all of them are zeros: free page 0 again and again
	native.PutUint64(list[16:], 15_000*pageSize/8)
	seal(b)
	found, err := audit(t, b)
	require.NoError(t, err)
	require.True(t, found.Stopped)
	require.Len(t, found.Problems, 10_000)
}

// An audit and a check end with ctx, and with what a read returns.
func TestAudit_Ends(t *testing.T) {
	b := newPatient(t, true)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f, err := preflight.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	_, err = f.Audit(ctx, layout)
	require.ErrorIs(t, err, context.Canceled)
	for at := 2 * pageSize; at < len(b); at += pageSize {
		f, err := preflight.Open(failing{bytes.NewReader(b), int64(at)}, int64(len(b)))
		require.NoError(t, err)
		if _, err = f.Audit(context.Background(), layout); err != nil {
			require.ErrorIs(t, err, errDisk)
		}
	}
}

// What may be held of what waits makes no difference to what is found, whether it is much or next to nothing.
func TestCheck_Held(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		path := filepath.Join(t.TempDir(), "file")
		db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, NoSync: true})
		require.NoError(t, err)
		w := workload{rand: rand.New(rand.NewPCG(seed, 0)), db: db, keys: []int{6000, 300, 60}[seed-1],
			long: []int{20, 2000, 30_000}[seed-1], much: 60}
		for range 15 {
			require.NoError(t, w.step())
		}
		require.NoError(t, db.Close())
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, held := range []int64{1, 1000, 100_000} {
			restore := preflight.Held(held)
			require.NoError(t, check(b))
			found, err := audit(t, b)
			restore()
			require.NoError(t, err)
			require.Empty(t, found.Problems)
			require.Equal(t, found.Pages, found.Used+found.Free, fmt.Sprint(seed, held))
		}
		// With damage in any page that is in use.
		for range effort.Of(20, 60) {
			damaged := bytes.Clone(b)
			at := (2+w.rand.IntN(len(b)/pageSize-2))*pageSize + w.rand.IntN(40)
			damaged[at] ^= 1 << w.rand.IntN(8)
			want, wantErr := audit(t, damaged)
			whole := check(damaged)
			restore := preflight.Held(1)
			got, gotErr := audit(t, damaged)
			again := check(damaged)
			restore()
			require.Equal(t, wantErr, gotErr)
			require.Equal(t, want.Used, got.Used)
			require.Equal(t, len(want.Problems) > 0, len(got.Problems) > 0)
			require.Equal(t, whole == nil, again == nil, "%v, %v", whole, again)
		}
	}
}
