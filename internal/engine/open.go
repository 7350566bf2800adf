package engine

import (
	"errors"

	"github.com/keepcache/keepcache/internal/beside"
	"github.com/keepcache/keepcache/internal/disk"
	"github.com/keepcache/keepcache/internal/errs"
	"github.com/keepcache/keepcache/internal/ground"
	"github.com/keepcache/keepcache/internal/journal"
	"github.com/keepcache/keepcache/internal/memory"
	"github.com/keepcache/keepcache/internal/store"
)

// Open opens the cache in the file at path, which must be absolute. in is the file's directory. The engine closes it,
// except that the caller has to close it after an error.
func Open(in *disk.Dir, path string, conf Config) (*Engine, error) {
	e, err := openOnce(in, path, conf, true)
	if errors.Is(err, errs.ErrUnavailable) {
		// The file has failed already, so it cannot be trusted although it was closed cleanly.
		e, err = openOnce(in, path, conf, false)
	}
	if errors.Is(err, errs.ErrCorrupt) && conf.Quarantine && !conf.ReadOnly && store.CanReplace {
		e, err = openFresh(in, path, conf, err)
	}
	return e, err
}

// openOnce opens the file at path and an engine on it. trusting says to trust a file that was closed cleanly.
func openOnce(in *disk.Dir, path string, conf Config, trusting bool) (*Engine, error) {
	s, err := store.Open(in, path, conf.ReadOnly, conf.LockTimeout, trusting)
	if err != nil {
		return nil, err
	}
	return openOn(s, conf)
}

// openOn opens an engine on an open store. If that fails, it closes the store.
func openOn(s *store.Store, conf Config) (*Engine, error) {
	e, err := newEngine(s, conf)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.MarkOpen()
	return e, nil
}

// openFresh quarantines the file at path because of the given damage, and opens a fresh one in its place.
func openFresh(in *disk.Dir, path string, conf Config, damage error) (*Engine, error) {
	h, movedTo, from, err := store.QuarantineDamaged(in, path, conf.LockTimeout)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	s, err := store.New(in, path, false, h)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	e, err := openOn(s, conf)
	if err == nil {
		e.healer.quarantined(movedTo, damage, from)
	}
	return e, err
}

// newEngine builds an engine on an open store, replays the journal, and starts the background work.
func newEngine(s *store.Store, conf Config) (*Engine, error) {
	e := &Engine{
		Judge: NewJudge(), conf: conf, store: s, memory: memory.New(conf.MemoryBytes),
		buckets: make(map[string]*namespace), byID: make(map[uint64]*namespace),
	}
	if !conf.ReadOnly {
		e.evictor = newEvictor(&conf)
	}
	if e.evictor != nil {
		e.memory.Reserve(e.evictor.recency.Bytes())
	}
	e.sweeper = &sweeper{store: s, log: conf.Log, listener: conf.Listener, nameOf: e.nameOf}
	e.healer = newHealer(e)
	if conf.ReadOnly {
		if _, err := e.readTables(); err != nil {
			return nil, err
		}
		if err := e.overlay(beside.Journal(s.Path())); err != nil {
			return nil, err
		}
		e.ctx, e.stop = ground.NewContext()
		e.work.Go(func() { e.healer.loop(e.ctx) })
		return e, nil
	}
	var successor func(after uint64) (*journal.Journal, error)
	if store.CanReplace {
		successor = func(after uint64) (*journal.Journal, error) { return e.newJournal(after, true) }
	}
	// If more than twice the memory limit were kept, the first writers would wait for many commits. Overwritten entries
	// count too.
	keep := 2 * min(conf.MemoryBytes, replayBytes/2)
	left, err := replay(s, beside.Journal(s.Path()), e.healer, keep, successor)
	if err != nil {
		return nil, err
	}
	unnamed, err := e.readTables()
	if err == nil {
		e.restore(left)
		e.sweeper.retire(e.retiredIDs(unnamed, left.names)...)
		err = e.start(left)
	}
	if err != nil && left.journal != nil {
		left.journal.Close(false)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// readTables reads the tables of buckets and tags from the file. It returns the ids without a name.
func (e *Engine) readTables() (unnamed []uint64, err error) {
	ids, unnamed, highest, err := e.store.Names()
	if err != nil {
		return nil, err
	}
	e.lastID = highest
	for name, id := range ids {
		e.setFileID(name, id)
		e.setID(e.namespace(name), id)
	}
	rows, floor, err := e.store.TagRows()
	if err != nil {
		return nil, err
	}
	e.tags.load(rows, floor)
	return unnamed, nil
}

// newJournal creates a journal for revisions above after. See journal.Options for staged.
func (e *Engine) newJournal(after uint64, staged bool) (*journal.Journal, error) {
	c := &e.conf
	return journal.New(beside.Journal(e.store.Path()), journal.Options{
		Dir: e.store.Dir(), Ground: c.Ground, Identity: e.store.Identity(),
		MaxBytes: c.JournalBytes, After: after, Staged: staged,
		Window: !c.SyncAlways, NoMap: c.SyncAlways, Like: e.store.Attributes,
	})
}

// start creates the parts that write and starts the background work. left is the backlog.
func (e *Engine) start(left *backlog) error {
	conf := &e.conf
	w := &writer{
		clock:     e.clock,
		memory:    e.memory,
		tags:      &e.tags,
		listener:  conf.Listener,
		path:      e.store.Path(),
		log:       conf.Log,
		always:    conf.SyncAlways,
		maxPinned: conf.MemoryBytes / 4 * 3,
		commitAt:  min(conf.CommitBytes, conf.MemoryBytes/8*3),
		journalAt: conf.JournalBytes / 2,
		needFlush: make(chan struct{}, 1),
		roomToken: make(chan struct{}, 1),
		revision:  left.last,
		names:     left.names,
		journal:   left.journal,
		open:      func(after uint64) (*journal.Journal, error) { return e.newJournal(after, false) },
	}
	c := &committer{
		store: e.store, memory: e.memory, writer: w, sweeper: e.sweeper, evictor: e.evictor,
		setFileID: e.setFileID, fileIDOf: e.fileIDOf,
		wake: make(chan struct{}, 1), round: make(chan struct{}), mark: left.mark,
	}
	w.commits = c
	w.nameBytes.Store(nameOpsBytes(left.names))
	if ev := e.evictor; ev != nil {
		ev.store, ev.memory, ev.sweeper, ev.requestRound, ev.idOf = e.store, e.memory, e.sweeper, c.request, e.idOf
	}
	if w.journal == nil {
		var err error
		if w.journal, err = w.open(left.last); err != nil {
			return err
		}
	} else if !w.always {
		w.flushRequested = true // its name at least
		w.needFlush <- struct{}{}
	}
	e.writer, e.commits = w, c
	e.sweeper.sweepTags, e.sweeper.sweepEmpty = e.sweepTags, e.sweepEmpty
	e.sweeper.lives, e.sweeper.saveSpared = e.memory.Holds, e.saveSpared
	e.compactor = &compactor{
		store: e.store, log: conf.Log, listener: conf.Listener, minFree: conf.CompactBytes, token: make(chan struct{}, 1),
	}

	ctx, stop := ground.NewContext()
	e.ctx, e.stop = ctx, stop
	e.work.Go(func() { e.healer.loop(ctx) })
	e.work.Go(func() { c.loop(ctx, conf.CommitInterval) })
	if !w.always && conf.SyncInterval > 0 {
		e.work.Go(func() { w.loop(ctx, conf.SyncInterval, conf.Log) })
	}
	if conf.CompactBytes < Unlimited && store.CanReplace {
		e.work.Go(func() { e.compactor.loop(ctx, func() uint64 { return c.snapshot().Entries }) })
	}
	if conf.SweepInterval > 0 {
		e.work.Go(func() { e.sweeper.loop(ctx, conf.SweepInterval) })
	}
	c.wakeLoop()
	return nil
}
