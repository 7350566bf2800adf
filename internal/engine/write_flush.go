package engine

import (
	"context"
	"log/slog"
	"time"
)

// seen waits for callers that wrote nothing because of what they read. It returns when that is as durable as the mode asks:
// another caller may have written it and still wait for the flush, without which a power cut would take it back.
func (w *writer) seen() error {
	if !w.always {
		return nil
	}
	w.mu.Lock()
	unlogged := w.unlogged
	w.mu.Unlock()
	if err := w.flush(); err != nil || w.commits.reached() >= unlogged {
		return err
	}
	return unknownOutcome(w.commits.await(unlogged)) // it may be in no journal
}

// flush flushes what was written so far and returns when it is on disk, in the journal or in the file.
func (w *writer) flush() error {
	w.mu.Lock()
	last, j := w.revision, w.journal
	w.unflushed = false
	w.mu.Unlock()
	if j != nil {
		if err := j.Flush(last); err == nil {
			return nil
		}
		w.lost(j)
	}
	return unknownOutcome(w.commits.await(last))
}

// loop flushes what was written, at the latest an interval after it was, until ctx ends.
func (w *writer) loop(ctx context.Context, interval time.Duration, log *slog.Logger) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.needFlush:
		}
		timer.Reset(interval)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := w.flush(); err != nil {
			log.Error("keepcache: flush failed", "path", w.path, "err", err)
		}
	}
}
