package memory

// absentKeys remembers, for one shard, keys that were looked up in the file and not found. Programs that miss a key
// often ask for it again, and the second miss then costs no look-up in the file.
//
// The set grows with use up to its share of memory. From then on it forgets: a hash belongs to one cache line of
// places, and new hashes overwrite old ones there. With a single place per hash, 100,000 keys in room for 131,072
// overwrote one another so often that a third of the misses went to the file. Keys are known by their 64-bit hash
// alone, with a seed of the process. A collision of two keys is possible but left to chance.
//
// The set is correct because every key that enters the file is first published in memory, which drops it here, or is
// followed by ForgetAbsent.
type absentKeys struct {
	lines    []absentLine // none before the first key, then a power of two
	maxLines int          // of lines
	used     bool         // whether a hash was ever put
}

// absentLine fills a cache line; 0 is a free place.
type absentLine [8]uint64

// absentShare is the share of memory for absent keys: 1 in absentShare.
const absentShare = 64

// newAbsentKeys returns an empty set for a shard with the given share of memory, in bytes.
func newAbsentKeys(bytes int64) (a absentKeys) {
	for n := int64(1); n <= min(bytes/absentShare/absentLineBytes, maxAbsentLines); n *= 2 {
		a.maxLines = int(n)
	}
	return a
}

const (
	absentLineBytes = 64

	// maxAbsentLines bounds a shard's set where memory is unlimited: a million keys.
	maxAbsentLines = 1 << 17
)

func (a *absentKeys) bytes() int64 { return int64(len(a.lines)) * absentLineBytes }

// line returns the line of a hash. The table of entries uses the lowest bits, too.
func (a *absentKeys) line(hash uint64) *absentLine { return &a.lines[hash&uint64(len(a.lines)-1)] }

// grow doubles the number of lines. It reports false at the maximum.
func (a *absentKeys) grow() bool {
	if len(a.lines) >= a.maxLines {
		return false
	}
	old := a.lines
	a.lines = make([]absentLine, max(2*len(old), 1))
	for i := range old {
		for _, hash := range old[i] {
			if hash != 0 {
				a.fill(hash)
			}
		}
	}
	return true
}

// fill puts a hash into a free place of its line. It reports false if the line is full.
func (a *absentKeys) fill(hash uint64) bool {
	line := a.line(hash)
	for i := range line {
		if line[i] == 0 {
			line[i] = hash
			return true
		}
	}
	return false
}

// find returns the place of a hash, or nil.
func (a *absentKeys) find(hash uint64) *uint64 {
	if !a.used {
		return nil
	}
	line := a.line(hash)
	for i := range line {
		if line[i] == hash {
			return &line[i]
		}
	}
	return nil
}

func (a *absentKeys) has(hash uint64) bool { return a.find(hash) != nil }

// put adds a hash. If its line is full and the set cannot grow, it overwrites the place that the upper bits select.
func (a *absentKeys) put(hash uint64) {
	if a.maxLines == 0 || a.has(hash) {
		return
	}
	a.used = true
	if len(a.lines) == 0 {
		a.grow()
	}
	for !a.fill(hash) {
		if !a.grow() {
			line := a.line(hash)
			line[hash>>32%uint64(len(line))] = hash
			return
		}
	}
}

func (a *absentKeys) drop(hash uint64) {
	if at := a.find(hash); at != nil {
		*at = 0
	}
}

// KeepAbsent remembers that the file does not have a key, unless the shard has changed since the given version.
func (m *Tier) KeepAbsent(hash, version uint64) {
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version == version {
		before := s.absent.bytes()
		s.absent.put(hash)
		if more := s.absent.bytes() - before; more > 0 {
			m.tables.Add(more)
			m.evict(s, s.evictable.bytes())
		}
	}
}

// ForgetAbsent forgets all absent keys because another file has replaced the one in which they were looked up. It
// changes the version of every shard, so a look-up in the old file that is still running adds nothing.
func (m *Tier) ForgetAbsent() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.version++
		m.tables.Add(-s.absent.bytes())
		s.absent.lines, s.absent.used = nil, false
		s.mu.Unlock()
	}
}
