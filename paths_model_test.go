//go:build unix

package keepcache_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
)

var (
	pathSteps = flag.Int("path.steps", 0, "steps of the model test of paths; 0 is 150, or 10,000 with KEEPCACHE_LONG")
	pathSeed  = flag.Uint64("path.seed", 0, "seed of that test; 0 is a random one")
)

// The model test of paths. A tree has one directory with a file named HOME in it, where the cache is, and others with a
// file named FOREIGN, which nothing may touch. A process opens the cache by any of its names, and then writes, changes
// its working directory, turns links, renames directories, puts foreign ones in their places, removes the cache's own
// and makes it anew, compacts and heals, until it is killed or closes the cache. What it says on its standard output
// that it has written has to be found in HOME then, by another process, and all that is FOREIGN as it was.
const (
	pathRounds    = 6  // processes that follow each other in one tree, the first of which makes the cache
	stepsPerRound = 25 // at the most
	pathKeys      = 12
)

func init() { children["path model"] = pathModelChild }

// After any of that the acknowledged writes are there, nothing foreign has changed, and nobody else could open the
// cache.
func TestPath_Model(t *testing.T) {
	t.Parallel()
	steps := *pathSteps
	if steps == 0 {
		if steps = 150; long {
			steps = 10_000
		}
	}
	seed := *pathSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-path.seed %d", seed)
	template := filepath.Join(t.TempDir(), "template.cache")
	db, err := keepcache.Open(template, nil)
	require.NoError(t, err)
	require.NoError(t, db.Set("0", "foreign", 0))
	require.NoError(t, db.Close())
	foreign, err := os.ReadFile(template)
	require.NoError(t, err)

	var sum pathCounts
	for tree := uint64(0); sum.steps < steps; tree++ {
		root := filepath.Join(pathTree(t), "root")
		require.NoError(t, os.MkdirAll(filepath.Join(root, "releases/1"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(root, "releases/1/HOME"), nil, 0o600))
		model := &pathModel{values: map[string]string{}}
		for round := range uint64(pathRounds) {
			if sum.steps >= steps {
				break
			}
			name := fmt.Sprint(tree, "/", round)
			cmd, out := startChild(t, "path model", root, template, fmt.Sprint(seed+tree), fmt.Sprint(round))
			model.read(t, out, &sum)
			err := cmd.Wait()
			var exit interface{ Sys() any }
			killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			require.True(t, err == nil || killed, "%s: %v", name, err)
			if sum.rounds++; killed {
				sum.kills++
			}
			requireForeign(t, root, foreign)
			if model.removing {
				break // killed while nothing had a name: that is not promised
			}
			model.check(t, name, root, killed)
		}
	}
	t.Logf("%+v", sum)
}

// pathTree returns a directory in which a sync costs nothing, where there is one: what is tested is not whether files
// are flushed.
func pathTree(t *testing.T) string {
	parent := t.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "keepcache-path-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	dir, err = filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	return dir
}

// pathCounts are what the test did.
type pathCounts struct {
	steps, rounds, kills, writes int
	by                           map[string]int
}

// pathModel is what a process has said.
type pathModel struct {
	values   map[string]string // acknowledged
	tried    [2]string         // key and value of a write that has not returned
	removing bool
}

// read takes in what a process says: "try KEY VALUE", "did", "step NAME", "removing", "removed". No value is "-".
func (m *pathModel) read(t *testing.T, out io.Reader, sum *pathCounts) {
	in := bufio.NewScanner(out)
	for in.Scan() {
		switch word := strings.Fields(in.Text()); word[0] {
		case "step":
			sum.steps++
			if sum.by == nil {
				sum.by = map[string]int{}
			}
			sum.by[word[1]]++
		case "try":
			m.tried = [2]string{word[1], word[2]}
		case "did":
			m.values[m.tried[0]] = m.tried[1]
			m.tried = [2]string{}
			sum.writes++
		case "removing":
			m.removing = true
		case "removed":
			m.removing = false
		default:
			require.Fail(t, in.Text())
		}
	}
	require.NoError(t, in.Err())
}

// check requires that the cache in HOME has what was acknowledged, and that nothing else is beside it but what a kill
// leaves.
func (m *pathModel) check(t *testing.T, name, root string, killed bool) {
	home := findHome(t, root)
	path := filepath.Join(home, "app.cache")
	if !killed {
		require.Equal(t, []string{"HOME", "app.cache"}, namesIn(t, home), name)
	}
	db, err := keepcache.Open(path, nil)
	require.NoError(t, err, name)
	for i := range pathKeys {
		key, got := strconv.Itoa(i), "-"
		_, err := db.Get(key, &got)
		require.NoError(t, err)
		want, known := m.values[key]
		if !known {
			want = "-"
		}
		if got != want {
			require.Equal(t, m.tried, [2]string{key, got}, "%s: key %s should be %s", name, key, want)
			m.values[key] = got
		}
	}
	m.tried = [2]string{}
	require.Zero(t, db.Stats().Health.LostWrites)
	report, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Problems)
	require.NoError(t, db.Close())
	for _, beside := range namesIn(t, home) {
		// A process that is killed may leave files that it makes under other names first.
		temporary := strings.HasPrefix(beside, "app.cache.new-") || strings.HasPrefix(beside, "app.cache.backup-")
		require.True(t, beside == "HOME" || beside == "app.cache" || killed && temporary, "%s: %s", name, beside)
		if temporary {
			require.NoError(t, os.Remove(filepath.Join(home, beside)))
		}
	}
}

// dirsIn returns all directories of a tree, none by way of a link.
func dirsIn(t tester, root string) (dirs []string) {
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	}))
	return dirs
}

func findHome(t tester, root string) string {
	for _, dir := range dirsIn(t, root) {
		if _, err := os.Lstat(filepath.Join(dir, "HOME")); err == nil {
			return dir
		}
	}
	require.Fail(t, "there is no HOME")
	return ""
}

// requireForeign requires that nothing has changed in any of the foreign directories, and that others have nothing of
// ours.
func requireForeign(t tester, root string, foreign []byte) {
	for _, dir := range dirsIn(t, root) {
		names := strings.Join(namesIn(t, dir), " ")
		switch {
		case strings.HasPrefix(names, "FOREIGN app.cache"):
			require.Equal(t, "FOREIGN app.cache", names, dir)
			content, err := os.ReadFile(filepath.Join(dir, "app.cache"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(foreign, content), "the cache in %s has changed", dir)
		case strings.Contains(names, "FOREIGN"):
			require.Equal(t, "FOREIGN", names, dir)
		case !strings.Contains(names, "HOME"):
			require.NotContains(t, names, "app.cache", dir)
		}
	}
}

// pathChild is one process of the model test.
type pathChild struct {
	t        tester
	r        *rand.Rand
	root     string
	template []byte
	db       *keepcache.DB
	reader   *keepcache.DB // of the same cache, without its lock
	values   map[string]string
	n        int // names and values given out
	round    string
	steps    []string // taken
}

func pathModelChild(t tester, args []string) {
	template, err := os.ReadFile(args[1])
	require.NoError(t, err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	require.NoError(t, err)
	round, err := strconv.ParseUint(args[3], 10, 64)
	require.NoError(t, err)
	c := &pathChild{
		t: t, r: rand.New(rand.NewPCG(seed, round)), root: args[0], template: template, values: map[string]string{},
		round: args[3],
	}
	require.NoError(t, os.Chdir(args[0]))
	c.chdir()
	o := &keepcache.Options{CommitInterval: time.Duration(1+c.r.IntN(200)) * time.Millisecond}
	if c.r.IntN(3) == 0 {
		o.Sync = keepcache.SyncAlways
	}
	if c.r.IntN(3) == 0 {
		o.JournalBytes = 64 << 10
	}
	c.db, err = keepcache.Open(c.spell(), o)
	require.NoError(t, err)
	c.openReader()
	for i := range pathKeys {
		got := "-"
		_, err := c.db.Get(strconv.Itoa(i), &got)
		require.NoError(t, err)
		c.values[strconv.Itoa(i)] = got
	}
	if c.r.IntN(2) == 0 {
		go func(after time.Duration) {
			time.Sleep(after)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}(time.Duration(c.r.IntN(60)) * time.Millisecond)
	}
	for range 5 + c.r.IntN(stepsPerRound-4) {
		c.step()
	}
	if c.r.IntN(2) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	c.chdir()
	require.NoError(t, errors.Join(c.reader.Close(), c.db.Close()))
}

// say writes a line at once, so that it is out when the process is killed.
func (c *pathChild) say(words ...any) { fmt.Fprintln(os.Stdout, words...) }

func (c *pathChild) step() {
	steps := []struct {
		name  string
		often int
		do    func()
	}{
		{"set", 10, c.set},
		{"read", 3, c.read},
		{"chdir", 4, c.chdir},
		{"link", 3, c.turnLink},
		{"away", 3, c.away},
		{"back", 2, c.back},
		{"above", 2, c.above},
		{"second", 4, c.second},
		{"heal", 4, c.db.Heal},
		{"compact", 2, func() { require.NoError(c.t, c.db.Compact(context.Background())) }},
		{"commit", 2, func() { committed(c.t, c.db) }},
		{"backup", 1, func() { require.NoError(c.t, c.db.Backup(context.Background(), io.Discard)) }},
		{"doubt", 1, c.doubt},
		{"journal", 1, c.large},
		{"remove", 1, c.remove},
		{"unlink", 1, c.unlink},
	}
	total := 0
	for _, s := range steps {
		total += s.often
	}
	at := c.r.IntN(total)
	for _, s := range steps {
		if at -= s.often; at < 0 {
			c.say("step", s.name)
			c.steps = append(c.steps, s.name)
			s.do()
			return
		}
	}
}

// name returns a new name.
func (c *pathChild) name(prefix string) string {
	c.n++
	return prefix + c.round + "-" + strconv.Itoa(c.n)
}

func (c *pathChild) set() {
	for range 1 + c.r.IntN(5) {
		key, value := strconv.Itoa(c.r.IntN(pathKeys)), c.name("v")
		if c.r.IntN(5) == 0 {
			value = "-"
		}
		c.say("try", key, value)
		var err error
		if value == "-" {
			_, err = c.db.Delete(key)
		} else {
			err = c.db.Set(key, value, 0)
		}
		require.NoError(c.t, err)
		c.say("did")
		c.values[key] = value
	}
	c.read()
}

// read looks through the cache and through the reader that has no lock.
func (c *pathChild) read() {
	for range 3 {
		key := strconv.Itoa(c.r.IntN(pathKeys))
		for i, db := range []*keepcache.DB{c.db, c.reader} {
			got := "-"
			_, err := db.Get(key, &got)
			require.NoError(c.t, err)
			require.Equal(c.t, c.values[key], got, "key %s, seen by %s, after %v", key, []string{"the cache", "the reader"}[i],
				c.steps)
		}
	}
}

// chdir goes to any directory of the tree, or to one outside.
func (c *pathChild) chdir() {
	dirs := append(dirsIn(c.t, c.root), "/", os.TempDir())
	require.NoError(c.t, os.Chdir(dirs[c.r.IntN(len(dirs))]))
}

// spell returns one of the many paths of the cache.
func (c *pathChild) spell() string {
	home := findHome(c.t, c.root)
	path := filepath.Join(home, "app.cache")
	switch c.r.IntN(5) {
	case 0:
		return path
	case 1:
		return filepath.Join(c.link(home), "app.cache")
	case 2: // what is cleaned is another path
		return c.link(home) + "/../" + filepath.Base(home) + "/./app.cache"
	case 3:
		return filepath.Join(c.link(c.link(filepath.Dir(home))), filepath.Base(home), "app.cache")
	}
	wd, err := os.Getwd()
	require.NoError(c.t, err)
	wd, err = filepath.EvalSymlinks(wd)
	require.NoError(c.t, err)
	rel, err := filepath.Rel(wd, path)
	require.NoError(c.t, err)
	return rel
}

// link makes the link "current", in a directory of its own, lead to a directory, and returns it.
func (c *pathChild) link(to string) string {
	link := filepath.Join(c.root, "..", "link"+strconv.Itoa(c.r.IntN(2)))
	if link == to {
		link += "-"
	}
	next := filepath.Join(c.root, "..", "next")
	require.NoError(c.t, errors.Join(os.RemoveAll(next), os.Symlink(to, next), os.Rename(next, link)))
	return link
}

// turnLink turns the links by which the cache may have been opened.
func (c *pathChild) turnLink() {
	for range 2 {
		dirs := dirsIn(c.t, c.root)
		c.link(dirs[c.r.IntN(len(dirs))])
	}
}

// foreign may put a directory at a path, empty, with a cache, or without.
func (c *pathChild) foreign(dir string) {
	kind := c.r.IntN(4)
	if kind == 0 {
		return
	}
	c.putForeign(dir, kind > 1)
}

// putForeign puts a directory there in one step, so that a kill leaves none that is half made.
func (c *pathChild) putForeign(dir string, withCache bool) {
	made := filepath.Join(c.root, "..", c.name("made"))
	require.NoError(c.t, os.Mkdir(made, 0o700))
	if withCache {
		require.NoError(c.t, os.WriteFile(filepath.Join(made, "app.cache"), c.template, 0o600))
	}
	require.NoError(c.t, os.WriteFile(filepath.Join(made, "FOREIGN"), nil, 0o600))
	require.NoError(c.t, os.Rename(made, dir))
}

// away renames the cache's directory, and may put another one in its place.
func (c *pathChild) away() {
	home := findHome(c.t, c.root)
	to := filepath.Join(filepath.Dir(home), c.name("away"))
	if c.r.IntN(3) == 0 {
		deep := filepath.Join(c.root, c.name("deep"))
		require.NoError(c.t, os.Mkdir(deep, 0o700))
		to = filepath.Join(deep, filepath.Base(home))
	}
	require.NoError(c.t, os.Rename(home, to))
	c.foreign(home)
}

// back gives the cache's directory the place that it was opened at.
func (c *pathChild) back() {
	home, place := findHome(c.t, c.root), filepath.Dir(c.db.Path())
	if home == place || strings.HasPrefix(place, home+"/") {
		return
	}
	if _, err := os.Lstat(place); err == nil {
		require.NoError(c.t, os.Rename(place, filepath.Join(c.root, c.name("put"))))
		if home = findHome(c.t, c.root); home == place {
			return
		}
	}
	require.NoError(c.t, os.MkdirAll(filepath.Dir(place), 0o700))
	require.NoError(c.t, os.Rename(home, place))
}

// above renames a directory further up.
func (c *pathChild) above() {
	up := filepath.Dir(findHome(c.t, c.root))
	if up == c.root {
		return
	}
	require.NoError(c.t, os.Rename(up, filepath.Join(c.root, c.name("up"))))
	if c.r.IntN(2) == 0 {
		require.NoError(c.t, os.MkdirAll(up, 0o700))
		c.foreign(filepath.Join(up, "1"))
	}
}

// second opens the cache once more, which nobody may.
func (c *pathChild) second() {
	db, err := keepcache.Open(c.spell(), &keepcache.Options{LockTimeout: -1})
	if err == nil {
		db.Close()
	}
	require.ErrorIs(c.t, err, keepcache.ErrLocked)
	if c.r.IntN(2) == 0 {
		require.NoError(c.t, c.reader.Close())
		c.openReader()
		c.read()
	}
}

func (c *pathChild) openReader() {
	var err error
	c.reader, err = keepcache.Open(c.spell(), &keepcache.Options{ReadOnly: true, NoLock: true})
	require.NoError(c.t, err)
}

// doubt has a copy take the place of the file.
func (c *pathChild) doubt() {
	c.db.FailSync(syscall.EIO)
	c.heal()
}

// large is a write that no journal of 64 KiB takes.
func (c *pathChild) large() {
	require.NoError(c.t, c.db.Bucket("large").SetBytes("large", bytes.Repeat([]byte("x"), 100_000), 0))
	_, err := c.db.Bucket("large").Delete("large")
	require.NoError(c.t, err)
}

// unlink removes the names of the file and of the journal, which come back. What a commit brings meanwhile is not
// promised to survive a kill.
func (c *pathChild) unlink() {
	path := filepath.Join(findHome(c.t, c.root), "app.cache")
	c.say("removing")
	require.NoError(c.t, os.Remove(path))
	_ = os.Remove(path + "-journal")
	c.healed()
}

// remove removes the cache's directory. A cache that has its place meanwhile is another's, and stays.
func (c *pathChild) remove() {
	c.say("removing")
	require.NoError(c.t, os.Chdir("/"))
	home, place := findHome(c.t, c.root), filepath.Dir(c.db.Path())
	away := func() { require.NoError(c.t, os.Rename(place, filepath.Join(c.root, c.name("put")))) }
	_, err := os.Lstat(place)
	_, taken := os.Lstat(filepath.Join(place, "app.cache"))
	if err == nil && taken != nil {
		away() // an empty one would be gone to
	}
	require.NoError(c.t, os.RemoveAll(home))
	c.db.Heal()
	require.True(c.t, c.db.Stats().Health.Unavailable)
	if home != place && taken == nil {
		away()
		c.db.Heal()
		require.True(c.t, c.db.Stats().Health.Unavailable)
	}
	require.NoError(c.t, os.MkdirAll(place, 0o700))
	require.NoError(c.t, os.WriteFile(filepath.Join(place, "HOME"), nil, 0o600))
	c.healed()
	require.NoError(c.t, c.reader.Close())
	c.openReader()
}

// heal waits until the file can be used again.
func (c *pathChild) heal() {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c.db.Heal()
		health := c.db.Stats().Health
		if !health.Unavailable {
			return
		}
		require.True(c.t, time.Now().Before(end), "%v", health.Err)
	}
}

// healed is heal after a loss of names, until a kill can do no harm any more.
func (c *pathChild) healed() {
	c.heal()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		_ = c.db.Sync(context.Background()) // it finds a journal without a name
		if _, err := c.db.Sweep(context.Background()); err == nil {
			break
		}
		require.True(c.t, time.Now().Before(end))
	}
	c.say("removed")
}
