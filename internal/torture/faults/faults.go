// Package faults lets calls to the file system fail, for a test to see what a cache makes of it.
package faults

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/keepcache/keepcache/internal/disk"
)

// Way is how a call fails.
type Way int

const (
	EIO    Way = iota // it does nothing and returns EIO
	ENOSPC            // it does nothing and returns ENOSPC
	Short             // a write writes half and returns ENOSPC
	After             // it is done, and returns EIO
)

// Ways are all of them.
var Ways = []Way{EIO, ENOSPC, Short, After}

func (w Way) String() string { return [...]string{"EIO", "ENOSPC", "short", "after the fact"}[w] }

// Fits reports whether a call of a kind can fail so. The system always closes and unmaps, whatever it says.
func (w Way) Fits(kind disk.Kind) bool {
	if kind == disk.KindClose || kind == disk.KindUnmap {
		return w == After
	}
	switch w {
	case ENOSPC:
		switch kind {
		case disk.KindRead, disk.KindOpen, disk.KindRemove, disk.KindStat:
			return false
		}
	case Short:
		return kind == disk.KindWrite
	}
	return true
}

// Call is one call as the Injector saw it.
type Call struct {
	Kind disk.Kind
	Role string // the name of the file without what is random in it
}

// Injector lets calls fail. The zero value only counts them.
type Injector struct {
	// Next makes the calls that do not fail, or fail after the fact. Default: nil, they are made.
	Next func(op *disk.Op, do func() error) error
	// Told is told of the calls that fail. Default: nil.
	Told func(op *disk.Op, way Way)

	mu     sync.Mutex   // protects what follows
	counts map[Call]int // how often each was made
	call   Call         // that fails
	nth    int          // the how manyth of it, from 0
	way    Way
	armed  bool // a call fails
	always bool // and all like it that follow, until Lift
	failed int
}

// Arm lets the nth call of its kind, counted from 0, fail, and with always all like it that follow.
func (i *Injector) Arm(call Call, nth int, way Way, always bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.call, i.nth, i.way, i.always, i.armed = call, nth, way, always, true
}

// Lift lets all calls succeed from now on.
func (i *Injector) Lift() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.armed = false
}

// Failed returns how many calls have failed.
func (i *Injector) Failed() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.failed
}

// Calls returns how often each call was made.
func (i *Injector) Calls() map[Call]int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.counts)
}

// Between is for disk.Between.
func (i *Injector) Between(op *disk.Op, do func() error) error {
	next := func() error {
		if i.Next != nil {
			return i.Next(op, do)
		}
		return do()
	}
	call := Call{op.Kind, roleOf(op)}
	i.mu.Lock()
	if i.counts == nil {
		i.counts = map[Call]int{}
	}
	n := i.counts[call]
	i.counts[call]++
	fails := i.armed && call == i.call && (n == i.nth || i.always && n > i.nth)
	if fails {
		i.failed++
	}
	way := i.way
	i.mu.Unlock()
	if !fails {
		return next()
	}
	errno := syscall.EIO
	switch way {
	case ENOSPC:
		errno = syscall.ENOSPC
	case Short:
		errno = syscall.ENOSPC
		part := *op
		part.Data = op.Data[:len(op.Data)/2]
		do := func() (err error) {
			part.N, err = op.File.WriteAt(part.Data, part.Off)
			return err
		}
		if i.Next != nil {
			i.Next(&part, do)
		} else {
			do()
		}
		op.N = part.N
	case After:
		next()
	}
	if i.Told != nil {
		i.Told(op, way)
	}
	path := op.Path
	if path == "" && op.File != nil {
		path = op.File.Name()
	}
	return &os.PathError{Op: string(op.Kind), Path: path, Err: errno}
}

// roleOf names the file of a call.
func roleOf(op *disk.Op) string {
	path := op.Path
	switch {
	case op.Kind == disk.KindSyncDir:
		return "directory"
	case op.Kind == disk.KindUnmap:
		return "" // nobody knows any more
	case op.Kind == disk.KindCreate && op.To != "":
		path = op.To
	case path == "":
		path = op.File.Name()
	}
	name := filepath.Base(path)
	for _, random := range []string{".new-", ".backup-", ".corrupt-", ".aside-"} {
		if k := strings.Index(name, random); k >= 0 {
			return name[:k+len(random)]
		}
	}
	return name
}
