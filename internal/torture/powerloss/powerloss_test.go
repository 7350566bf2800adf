package powerloss_test

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache/internal/torture/boltpatch"
	"github.com/keepcache/keepcache/internal/torture/effort"
)

// allControls is how many states are asked for where all controls are run too. Each builds the module anew, in part.
const allControls = 10_000

var states = flag.Int("powerloss.states", effort.Of(200, 600), "how many states of power cuts to open")

// explorers runs exploring processes, one for each processor, and adds up what they tell.
func explorers(t *testing.T, binary string, states int, args ...string) (all summary) {
	t.Helper()
	n := min(runtime.GOMAXPROCS(0), 1+states/200)
	boltpatch.Spread(t, binary, "TestExplore", n, func(i int) []string {
		return append([]string{
			fmt.Sprint("-powerloss.explore=", (states+n-1)/n), fmt.Sprint("-powerloss.seed=", i),
			fmt.Sprint("-powerloss.step=", n),
		}, args...)
	}, func(s summary) {
		all.Runs += s.Runs
		all.Events += s.Events
		all.Cuts += s.Cuts
		all.States += s.States
		all.Again += s.Again
		all.Damaged += s.Damaged
		all.Fresh += s.Fresh
		all.Same += s.Same
		all.Always += s.Always
		all.Bad += s.Bad
		all.Lost += s.Lost
		all.Elsewise += s.Elsewise
		all.Acked += s.Acked
		all.Unacked += s.Unacked
		all.Failures = append(all.Failures, s.Failures...)
	}, func(err error, output []byte) {
		all.Bad++
		all.Failures = append(all.Failures, fmt.Sprintf("an exploring process died: %v\n%s", err, output))
	})
	return all
}

// Whatever of the unsynced a power cut leaves, the cache opens, is sound, and has all that was promised: with
// SyncAlways every write that returned, otherwise those that are older than SyncInterval, a batch whole or not at all,
// and no value that was never set.
func TestPowerLoss(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only there the journal is mapped")
	}
	binary := boltpatch.Build(t)
	start := time.Now()
	s := explorers(t, binary, *states)
	t.Logf("%d states of %d cuts in %d runs with %d events, %d of them of a second cut while the first was recovered from, %d with SyncAlways; "+
		"%d with a damaged file and %d with a fresh one in its place; %d others were equal to these; %.0f states a second",
		s.States, s.Cuts, s.Runs, s.Events, s.Again, s.Always, s.Damaged, s.Fresh, s.Same,
		float64(s.States)/time.Since(start).Seconds())
	for _, f := range s.Failures {
		t.Log(f)
	}
	require.Zero(t, s.Bad, "%d states lost something, %d are bad otherwise", s.Lost, s.Elsewise)
	require.GreaterOrEqual(t, s.States, *states)
	require.Positive(t, s.Again)
	require.Positive(t, s.Damaged)
	require.Positive(t, s.Fresh)
	require.Positive(t, s.Acked)
	require.Positive(t, s.Unacked)
	require.Positive(t, s.Always)
	require.Less(t, s.Always, s.States)
}

// Where syncs do nothing, and where torn log records of the journal pass for whole ones, the same test finds what is
// lost: it can fail.
func TestPowerLoss_CanFail(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only there the journal is mapped")
	}
	finds := func(name string, few bool, args []string, breaks ...boltpatch.Edit) {
		t.Run(name, func(t *testing.T) {
			if !few && *states < allControls {
				t.Skipf("with %d states or more", allControls)
			}
			s := explorers(t, boltpatch.Build(t, breaks...), 6000, append(args, "-powerloss.hang=2s")...)
			t.Logf("%d of %d states are bad; %d lost something", s.Bad, s.States, s.Lost)
			require.Positive(t, s.Bad)
		})
	}
	for _, skip := range []string{"all", "journal", "file", "names"} {
		finds("no sync of "+skip, skip == "journal", []string{"-powerloss.skip", skip})
	}
	noLogRecordSum := boltpatch.Edit{
		File: "internal/journal/format.go",
		Old:  "if le.Uint32(b) != crc32.Update(salt, castagnoli, b[4:n]) {",
		New:  "if false {",
	}
	noRecordSum := boltpatch.Edit{
		File: "internal/format/record.go",
		Old:  "if recordSum(body, bucket, key) != binary.BigEndian.Uint32(rec[len(body):]) && !TrustChecksums {",
		New:  "if false {",
	}
	finds("no checksum of log records", true, nil, noLogRecordSum)
	finds("no checksum of log records and records", false, nil, noLogRecordSum, noRecordSum)
	finds("no sync of what a killed process left", false, []string{"-powerloss.killed=60"}, boltpatch.Edit{
		File: "internal/store/durable.go",
		Old:  "if h.found.clean {",
		New:  "if true {",
	}, boltpatch.Edit{ // it syncs too, where there is no list yet
		File: "internal/store/preflight.go",
		Old:  "_, _ = file.StoreList(disk.In(f))",
		New:  "_ = disk.In(f)",
	})
	finds("no sync before the renaming of a compaction", false, nil, boltpatch.Edit{
		File: "internal/store/compact.go",
		Old:  "if err := n.handle.sync(); err != nil {\n\t\treturn nil, err\n\t}",
		New:  "",
	})
	quarantine := []string{"-powerloss.damaged=40"}
	finds("no sync of the file that takes the place of a damaged one", false, quarantine, boltpatch.Edit{
		File: "internal/store/quarantine.go",
		Old:  "err = h.update(from.write)\n\tif err == nil {\n\t\terr = h.sync()\n\t}",
		New:  "h.db.NoSync = true\n\terr = h.update(from.write)\n\th.db.NoSync = false",
	})
	finds("a fresh file gets what is older than a write past the journal", false, quarantine, boltpatch.Edit{
		File: "internal/store/catalog.go",
		Old:  "if g.Mark, err = g.completeFrom(in, journalAt, released); err != nil {",
		New:  "if g.Mark = released; err != nil {",
	})
}
