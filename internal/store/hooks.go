package store

// The following is for tests of other packages.

// Disable makes bbolt refuse all further transactions.
func (s *Store) Disable() error {
	s.release()
	return s.current.Load().db.Close()
}

// DetachedCount returns how many detached transactions are still running.
func (s *Store) DetachedCount() int64 { return s.detached.Load() }

// LargestTransaction returns the size in bytes of the pages of the largest transaction since the file was opened.
func (h *Handle) LargestTransaction() int64 { return h.maxWritten.Load() }
