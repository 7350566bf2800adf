package memory

// absences remembers, for one shard, keys that the file was looked through for in vain, so that asking for them again costs
// no second look: who asks for what is not there often asks again. It grows with use up to its part of memory, and is forgetful
// from then on: each hash has the places of
// one cache line, where the last ones stay. With one place each, 100,000 keys in room for 131,072 forgot one another so often that a third
// of the questions went to the file. It knows keys by their hashes alone, of 64 bits and with a seed of the process; that two keys
// share one is left to chance.
//
// It is right as long as nothing comes into the file that was not published in memory, which drops the key here, or that
// is not followed by ForgetAbsent.
type absences struct {
	lines []absentLine // none before the first key, then a power of two of them
	most  int          // lines
	some  bool         // one was remembered, ever
}

// absentLine is what a cache line has room for; 0 is none.
type absentLine [8]uint64

// absencesPart is the part of memory that they get, 1 in so many.
const absencesPart = 64

// newAbsences returns an empty memory for a shard that may have the given bytes.
func newAbsences(bytes int64) (a absences) {
	for n := int64(1); n <= min(bytes/absencesPart/absentLineBytes, absentLinesMost); n *= 2 {
		a.most = int(n)
	}
	return a
}

const (
	absentLineBytes = 64

	// absentLinesMost bounds what a shard remembers where memory is unlimited: a million keys.
	absentLinesMost = 1 << 17
)

func (a *absences) bytes() int64 { return int64(len(a.lines)) * absentLineBytes }

// line returns where a hash is remembered. The table of entries goes by the lowest bits, too.
func (a *absences) line(hash uint64) *absentLine { return &a.lines[hash&uint64(len(a.lines)-1)] }

// grow doubles the lines, and reports false if there may not be more.
func (a *absences) grow() bool {
	if len(a.lines) >= a.most {
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

// fill puts a hash into a free place of its line, and reports false if there is none.
func (a *absences) fill(hash uint64) bool {
	line := a.line(hash)
	for i := range line {
		if line[i] == 0 {
			line[i] = hash
			return true
		}
	}
	return false
}

// place returns the place that has a hash, or nil.
func (a *absences) place(hash uint64) *uint64 {
	if !a.some {
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

func (a *absences) has(hash uint64) bool { return a.place(hash) != nil }

// put remembers a hash, in a free place of its line if there is one or can be one, and otherwise in one that its upper bits name.
func (a *absences) put(hash uint64) {
	if a.most == 0 || a.has(hash) {
		return
	}
	a.some = true
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

func (a *absences) drop(hash uint64) {
	if at := a.place(hash); at != nil {
		*at = 0
	}
}

// KeepAbsent remembers that the file does not have a key, unless the shard has changed since it had the given version.
func (m *Tier) KeepAbsent(hash, version uint64) {
	s := m.ShardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version == version {
		before := s.absent.bytes()
		s.absent.put(hash)
		if more := s.absent.bytes() - before; more > 0 {
			m.tables.Add(more)
			m.evict(s, s.cold.bytes())
		}
	}
}

// ForgetAbsent is for when another file has taken the place of the one that was looked through. The shards change, so that
// nobody who looked through the old one remembers anything of it.
func (m *Tier) ForgetAbsent() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.version++
		m.tables.Add(-s.absent.bytes())
		s.absent.lines, s.absent.some = nil, false
		s.mu.Unlock()
	}
}
