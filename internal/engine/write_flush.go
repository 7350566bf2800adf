package engine

import (
	"context"
	"log/slog"
	"time"
)

// waitDurable is for callers that wrote nothing because of what they read. It waits until that is as durable as the
// mode requires. Another caller may have written it and may still be waiting for the flush. Without that flush a power
// cut would undo what was read.
func (w *writer) waitDurable() error {
	if !w.always {
		return nil
	}
	w.mu.Lock()
	unlogged := w.unlogged
	w.mu.Unlock()
	if err := w.flush(); err != nil || w.commits.committed() >= unlogged {
		return err
	}
	return unknownOutcome(w.commits.await(unlogged)) // it may not be in the journal
}

// flush waits until everything written so far is on disk, in the journal or in the file.
func (w *writer) flush() error {
	w.mu.Lock()
	last, j := w.revision, w.journal
	w.flushRequested = false
	w.mu.Unlock()
	if j != nil {
		if err := j.Flush(last); err == nil {
			return nil
		}
		w.journalFailed(j)
	}
	return unknownOutcome(w.commits.await(last))
}

// loop flushes what was written within interval of the write, until ctx ends.
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
