package keepcache

// absences remembers, for one shard, keys that the file was looked through for in vain, so that asking for them again costs
// no second look: who asks for what is not there often asks again. It is of fixed size and forgetful: each hash has the places of
// one cache line, where the last ones stay. With one place each, 100,000 keys in room for 131,072 forgot one another so often that a third
// of the questions went to the file. It knows keys by their hashes alone, of 64 bits and with a seed of the process; that two keys
// share one is left to chance.
//
// It is right as long as nothing comes into the file that was not published in memory, which drops the key here, or that
// is not followed by forgetAbsences.
type absences struct {
	lines []absentLine // a power of two of them
	some  bool         // one was remembered, ever
}

// absentLine is what a cache line has room for; 0 is none.
type absentLine [8]uint64

// absencesPart is the part of memory that they get, 1 in so many.
const absencesPart = 64

func newAbsences(bytes int64) (a absences) {
	n := int64(1)
	if n*64 > bytes/absencesPart {
		return a
	}
	for n*128 <= bytes/absencesPart {
		n *= 2
	}
	a.lines = make([]absentLine, n)
	return a
}

func (a *absences) bytes() int64 { return int64(len(a.lines)) * 64 }

// line returns where a hash is remembered. The table of entries goes by the lowest bits, too.
func (a *absences) line(hash uint64) *absentLine { return &a.lines[hash&uint64(len(a.lines)-1)] }

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

// put remembers a hash, in a free place if its line has one, and otherwise in one that its upper bits name.
func (a *absences) put(hash uint64) {
	if len(a.lines) == 0 || a.has(hash) {
		return
	}
	a.some = true
	line := a.line(hash)
	at := hash >> 32 % uint64(len(line))
	for i := range line {
		if line[i] == 0 {
			at = uint64(i)
			break
		}
	}
	line[at] = hash
}

func (a *absences) drop(hash uint64) {
	if at := a.place(hash); at != nil {
		*at = 0
	}
}

// lacks remembers that the file does not have a key, unless the shard has changed since it had the given version.
func (m *memory) lacks(hash, version uint64) {
	s := m.shardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version == version {
		s.absent.put(hash)
	}
}

// forgetAbsences is for when another file has taken the place of the one that was looked through. The shards change, so that
// nobody who looked through the old one remembers anything of it.
func (m *memory) forgetAbsences() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.version++
		clear(s.absent.lines)
		s.absent.some = false
		s.mu.Unlock()
	}
}
