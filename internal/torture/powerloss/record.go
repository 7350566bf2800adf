// Package powerloss shows what a power cut may leave of files, so that a test can open it.
//
// A [Recorder] stands between the cache and the file system and writes down each write, each new size, each change of a
// name and each sync, with marks that the test sets among them: what it began and what was acknowledged. A [Disk] goes
// through that record up to a moment, and from there makes states: what was synced before is there, and of the rest
// anything.
//
// # What a power cut may leave
//
//   - Of what was written to a file and not synced since, any subset of sectors of 512 bytes, each in any of the
//     versions that it has had meanwhile. A write is thus torn, and later ones may be there without earlier ones.
//   - What was stored through a map may be torn anywhere, because the system can take the page in the middle of a
//     store.
//   - Of the sizes that the file has had since its last sync, any. What lies behind is not there, and what was never
//     written is zero.
//   - Of the names that were made, changed and removed since their directory was last synced, the first few or any
//     subset. The sync of a file does not make its name durable, as POSIX has it, although it does on most file
//     systems.
//
// A sync counts from its end for all that was there at its beginning. Sectors are whole or not there: disks promise so.
// What breaks that promise, or writes where nobody asked for it, is no power cut: see [Recorder.Damage] and
// [State.Damage].
package powerloss

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/keepcache/keepcache/internal/disk"
)

const sector = 512

// node is a file, whatever its names.
type node struct {
	number  int
	info    os.FileInfo
	before  []byte // content before the first event
	content []byte // as a process reads it
}

// event is one thing that happened. What an event of a kind has stands behind the kind.
type event struct {
	number int
	// KindCreate, KindRename, KindLink, KindRemove, KindTruncate, KindWrite, KindSync, KindSyncDir or mark
	kind   disk.Kind
	at     time.Time
	node   *node
	name   string // of a change of names: base name
	to     string
	data   []byte // of a write, and of damage all that the file has from then on
	off    int64  // of a write, and the size of a truncation
	mapped bool   // the write was a store
	begun  int    // of a sync: how many events there were at its beginning
	mark   any
}

const (
	mark disk.Kind = "mark"
	drop disk.Kind = "drop" // a sync of the file has failed
	harm disk.Kind = "harm" // the disk has damaged the file
)

// mapping is a part of a file that the process stores to.
type mapping struct {
	node *node
	off  int64
	mem  []byte
}

// Recorder writes down what happens to the files of one directory.
type Recorder struct {
	// Pause is called in the middle of each sync, to let others write meanwhile. Default: nil.
	Pause func()

	dir string

	mu     sync.Mutex // protects what follows
	events []event
	nodes  []*node
	names  map[string]*node
	maps   []mapping
	start  map[string]*node // the names at the beginning
	ended  bool
}

// NewRecorder returns a Recorder for the directory dir. What is in it counts as durable.
func NewRecorder(dir string) (*Recorder, error) {
	r := &Recorder{dir: dir, names: map[string]*node{}, start: map[string]*node{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		var n *node
		for _, other := range r.nodes {
			if os.SameFile(info, other.info) {
				n = other
			}
		}
		if n == nil {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			n = r.newNode(info)
			n.before, n.content = b, bytes.Clone(b)
		}
		r.names[e.Name()], r.start[e.Name()] = n, n
	}
	return r, nil
}

func (r *Recorder) newNode(info os.FileInfo) *node {
	n := &node{number: len(r.nodes), info: info}
	r.nodes = append(r.nodes, n)
	return n
}

// Mark puts v among the events.
func (r *Recorder) Mark(v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look(nil)
	r.add(event{kind: mark, mark: v})
}

// Damage replaces all that the file of a name has, on the disk and for whoever reads it, by what change makes of it: as
// if the disk had done it. change returns another slice than it gets, and may call Mark.
func (r *Recorder) Damage(name string, change func(content []byte) []byte) error {
	r.mu.Lock()
	n := r.names[name]
	was := bytes.Clone(n.content)
	r.mu.Unlock()
	damaged := change(was)
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(damaged, 0)
	n.content = bytes.Clone(damaged)
	r.add(event{kind: harm, node: n, data: damaged})
	return errors.Join(err, f.Truncate(int64(len(damaged))), f.Close())
}

// End has the Recorder write down nothing more.
func (r *Recorder) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

func (r *Recorder) add(e event) {
	if !r.ended {
		e.number, e.at = len(r.events), time.Now()
		r.events = append(r.events, e)
	}
}

// Between is for disk.Between. Syncs are not made: nothing here lives through a real power cut.
func (r *Recorder) Between(op *disk.Op, do func() error) error {
	switch op.Kind {
	case disk.KindSync, disk.KindSyncDir:
		return r.sync(op)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	existed := false
	if op.Kind == disk.KindCreate && op.Flag&os.O_EXCL == 0 {
		_, existed = r.names[filepath.Base(op.Path)]
	}
	if op.Kind == disk.KindUnmap {
		r.look(nil)
		for i, m := range r.maps {
			if len(op.Data) > 0 && &m.mem[0] == &op.Data[0] {
				r.maps = append(r.maps[:i], r.maps[i+1:]...)
				break
			}
		}
	}
	if err := do(); err != nil {
		return err
	}
	switch op.Kind {
	case disk.KindCreate:
		if name := filepath.Base(op.Path); !existed {
			info, err := op.File.Stat()
			if err != nil {
				return err
			}
			n := r.newNode(info)
			r.names[name] = n
			r.add(event{kind: disk.KindCreate, node: n, name: name})
		}
	case disk.KindRename:
		from, to := filepath.Base(op.Path), filepath.Base(op.To)
		n := r.names[from]
		delete(r.names, from)
		r.names[to] = n
		r.add(event{kind: disk.KindRename, node: n, name: from, to: to})
	case disk.KindLink:
		n := r.names[filepath.Base(op.Path)]
		r.names[filepath.Base(op.To)] = n
		r.add(event{kind: disk.KindLink, node: n, to: filepath.Base(op.To)})
	case disk.KindRemove:
		name := filepath.Base(op.Path)
		r.add(event{kind: disk.KindRemove, node: r.names[name], name: name})
		delete(r.names, name)
	case disk.KindWrite:
		if n := r.nodeOf(op.File); n != nil {
			r.look(n)
			r.write(n, bytes.Clone(op.Data), op.Off, false)
		}
	case disk.KindTruncate:
		if n := r.nodeOf(op.File); n != nil {
			n.content = resize(n.content, op.Off)
			r.add(event{kind: disk.KindTruncate, node: n, off: op.Off})
		}
	case disk.KindMap:
		if n := r.nodeOf(op.File); n != nil && op.Flag&os.O_RDWR != 0 {
			r.maps = append(r.maps, mapping{n, op.Off, op.Data})
		}
	}
	return nil
}

// Failed is told of a sync that fails. What was written until now may never reach the disk, also where a later sync
// succeeds: systems take such pages for clean.
func (r *Recorder) Failed(op *disk.Op) {
	if op.Kind != disk.KindSync {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.nodeOf(op.File); n != nil {
		r.look(n)
		r.add(event{kind: drop, node: n})
	}
}

func (r *Recorder) sync(op *disk.Op) error {
	e := event{kind: op.Kind}
	r.mu.Lock()
	if op.Kind == disk.KindSync {
		e.node = r.nodeOf(op.File)
		r.look(e.node)
	}
	e.begun = len(r.events)
	r.mu.Unlock()
	if r.Pause != nil {
		r.Pause()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(e)
	return nil
}

func (r *Recorder) write(n *node, data []byte, off int64, mapped bool) {
	if end := off + int64(len(data)); end > int64(len(n.content)) {
		n.content = resize(n.content, end)
	}
	copy(n.content[off:], data)
	r.add(event{kind: disk.KindWrite, node: n, data: data, off: off, mapped: mapped})
}

// look writes down what was stored to the maps of n, or of all files, since it last looked. mu is held.
func (r *Recorder) look(n *node) {
	for _, m := range r.maps {
		if n != nil && m.node != n {
			continue
		}
		for at := 0; at < len(m.mem); {
			known := m.node.content[m.off:][:len(m.mem)]
			if bytes.Equal(m.mem[at:min(at+8*sector, len(m.mem))], known[at:min(at+8*sector, len(m.mem))]) {
				at += 8 * sector
				continue
			}
			for end := min(at+8*sector, len(m.mem)); at < end; at += sector {
				if now := m.mem[at : at+sector]; !bytes.Equal(now, known[at:at+sector]) {
					r.write(m.node, bytes.Clone(now), m.off+int64(at), true)
				}
			}
		}
	}
}

// nodeOf finds an open file, of several with the same number the one that was made last.
func (r *Recorder) nodeOf(f *os.File) *node {
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	for i := len(r.nodes) - 1; i >= 0; i-- {
		if os.SameFile(info, r.nodes[i].info) {
			return r.nodes[i]
		}
	}
	return nil
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}
