package keepcache

// absences remembers, for one shard, keys that the file was looked through for in vain, so that asking for them again costs
// no second look: who asks for what is not there often asks again. It is of fixed size and forgetful: each hash has one
// place, where the last one stays. It knows keys by their hashes alone, of 64 bits and with a seed of the process; that two keys
// share one is left to chance.
//
// It is right as long as nothing comes into the file that was not published in memory, which drops the key here, or that
// is not followed by forgetAbsences.
type absences struct {
	hashes []uint64 // a power of two of them; 0 for none
	some   bool     // one was remembered, ever
}

// absencesPart is the part of memory that they get, 1 in so many.
const absencesPart = 64

func newAbsences(bytes int64) (a absences) {
	n := int64(8)
	if n*8 > bytes/absencesPart {
		return a
	}
	for n*16 <= bytes/absencesPart {
		n *= 2
	}
	a.hashes = make([]uint64, n)
	return a
}

func (a *absences) bytes() int64 { return int64(len(a.hashes)) * 8 }

// place returns where a hash is remembered. The table of entries goes by the lowest bits, too.
func (a *absences) place(hash uint64) *uint64 { return &a.hashes[hash&uint64(len(a.hashes)-1)] }

func (a *absences) has(hash uint64) bool { return a.some && *a.place(hash) == hash }

func (a *absences) put(hash uint64) {
	if len(a.hashes) > 0 {
		*a.place(hash) = hash
		a.some = true
	}
}

func (a *absences) drop(hash uint64) {
	if a.has(hash) {
		*a.place(hash) = 0
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
		clear(s.absent.hashes)
		s.absent.some = false
		s.mu.Unlock()
	}
}
