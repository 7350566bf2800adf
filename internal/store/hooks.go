package store

// What follows is for tests of the packages above, which want to see how they do without the file.

// Disable has bbolt refuse each transaction from here on.
func (s *Store) Disable() error {
	s.release()
	return s.current.Load().db.Close()
}

// StrayCount returns how many transactions nobody waits for any more and that go on.
func (s *Store) StrayCount() int64 { return s.strays.Load() }

// LargestTransaction returns how many bytes the pages have that one transaction has written, at the most, since the file was opened.
func (h *Handle) LargestTransaction() int64 { return h.most.Load() }
