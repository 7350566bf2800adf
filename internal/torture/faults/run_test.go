package faults_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/torture/boltpatch"
)

// allControls is how many calls are asked for where all controls are run too. Each builds the module anew, in part.
const allControls = 3

// failers runs failing processes, one for each processor, and adds up what they tell.
func failers(t *testing.T, binary string, args ...string) (all summary) {
	t.Helper()
	all.Kinds = map[string]int{}
	n := runtime.GOMAXPROCS(0)
	boltpatch.Spread(t, binary, "TestFail", n, func(i int) []string {
		return append([]string{
			fmt.Sprint("-faults.first=", i), fmt.Sprint("-faults.step=", n), fmt.Sprint("-faults.kinds=", *kinds),
			fmt.Sprint("-faults.calls=", *perCall), fmt.Sprint("-faults.commits=", *commits), fmt.Sprint("-faults.only=", *only),
		}, args...)
	}, func(s summary) {
		all.Cases += s.Cases
		all.Hit += s.Hit
		all.Errors += s.Errors
		all.Unknown += s.Unknown
		all.Failed += s.Failed
		all.Cuts += s.Cuts
		for kind, n := range s.Kinds {
			all.Kinds[kind] += n
		}
		all.Bad = append(all.Bad, s.Bad...)
	}, func(err error, output []byte) {
		for line := range bytes.Lines(output) {
			if found, ok := bytes.CutPrefix(line, []byte("bad: ")); ok {
				all.Bad = append(all.Bad, string(found))
			}
		}
		last := output[max(0, bytes.LastIndex(output, []byte("\ncase "))):]
		all.Bad = append(all.Bad, fmt.Sprintf("a failing process died: %v\n%s", err, last))
	})
	return all
}

// Whichever call to the file system fails, and however: the error says so, nothing that was acknowledged is lost,
// nothing is there that was never set or was refused, no call hangs, and when the cause is gone everything works again.
func TestFaults(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no file can be renamed there while it is open")
	}
	binary := boltpatch.Build(t)
	start := time.Now()
	s := failers(t, binary)
	t.Logf("%d cases, in %d of which a call failed, %d in all; %d calls of the cache returned an error, %d of these of an unknown outcome; by kind %v; %d states of power cuts; %.0f a second",
		s.Cases, s.Hit, s.Failed, s.Errors, s.Unknown, s.Kinds, s.Cuts, float64(s.Cases)/time.Since(start).Seconds())
	for _, bad := range s.Bad {
		t.Log(bad)
	}
	require.Empty(t, s.Bad)
	require.Greater(t, s.Hit, s.Cases*8/10)
	require.Positive(t, s.Errors)
}

// Where the cache does not heed failures, the same test finds it: it can fail.
func TestFaults_CanFail(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no file can be renamed there while it is open")
	}
	for _, c := range []struct {
		name, kinds string
		few         bool
		always      bool
		breaks      []boltpatch.Edit
	}{
		{"a flush that failed counts", "sync", true, true, []boltpatch.Edit{{
			File: "internal/journal/flush.go", Old: "err = j.file.Datasync()", New: "_ = j.file.Datasync()",
		}}},
		{"a commit that failed is built upon", "sync", false, true, []boltpatch.Edit{{
			File: "internal/store/durable.go", Old: "if h.found.clean {", New: "if true {",
		}, {
			File: "internal/store/preflight.go", Old: "_, _ = file.StoreList(disk.In(f))", New: "_ = disk.In(f)",
		}}},
		{"a renaming that failed was not done", "rename", false, false, []boltpatch.Edit{{
			File: "internal/store/compact.go", Old: "err = n.rename(absent)",
			New: "_ = absent; err = n.dir.Rename(n.path, s.path)",
		}}},
		{"a renaming that is not synced counts", "syncdir", false, true, []boltpatch.Edit{{
			File: "internal/store/compact.go", Old: "n.handle.Freeze(err)", New: "err = nil",
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.few && *perCall > 0 && *perCall < allControls {
				t.Skipf("with %d calls or more", allControls)
			}
			s := failers(t, boltpatch.Build(t, c.breaks...), "-faults.kinds", c.kinds, "-faults.calls", "24", "-faults.stop",
				"1", "-faults.commits", "4", fmt.Sprint("-faults.always=", c.always))
			t.Logf("%d findings in %d cases", len(s.Bad), s.Cases)
			require.NotEmpty(t, s.Bad)
			t.Logf("%.1000s", s.Bad[0])
		})
	}
}
