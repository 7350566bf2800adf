// Package preflight proves that a bbolt file is one that bbolt can work with, before bbolt maps it.
//
// bbolt trusts its file: a wrong number in a page makes it panic, fault, loop or take all memory, often in a
// goroutine that nobody can recover in, and often long after the file was opened. This package reads the file with
// bounded reads, trusts nothing that it reads, and accepts a file only if all of this holds:
//
//   - There is a whole meta page (magic, version, checksum, a page size that is a power of two from 1 to 64 KiB),
//     chosen among the two as bbolt chooses it; the file has all the pages that it speaks of; its root and list of
//     free pages lie among them; its transaction id is far from its end.
//   - Every page that can be reached from the root bears its own number, is a leaf or a branch, lies with its
//     overflow within the pages that the meta page speaks of, and is reached once.
//   - The elements of a page and what they point at lie within the page, in their order and apart from each other.
//     Keys are neither empty nor longer than bbolt allows, and rise within a page. Across pages, the first key of a
//     page is the one under which its parent has it, and its last comes before the parent's next: bbolt finds a page
//     in its parent by its first key when it writes it.
//   - A branch has two children at least, and a leaf below one has an element at least: bbolt never writes others and
//     panics when it has to merge such a one.
//   - The leaves of a bucket are all equally deep. bbolt merges a small page with its neighbour and takes the two for
//     of one kind; where they are not it panics, or leaves a page in two places.
//   - Buckets lie where the Layout has them. A bucket within its parent's page lies within its element and has no
//     bucket in it. Trees are no deeper than maxDepth.
//   - The list of free pages, if there is one, is within its page, rises, and has no page that is reached.
//
// Nothing is said about values. What is unreachable and in no list is only lost room, and accepted.
//
// No recursion is used, memory stays below a few hundredths of the file, and the file is read once: pages are taken
// level by level, each level in the order of the file and in large reads, the leaves of all trees together last, and
// only the keys of a page that is long because of its values are read.
package preflight

import "fmt"

// Damage is what is wrong with a file. It is an error.
type Damage struct {
	Page uint64 // the number of the page where it shows
	What string
}

// Error reads "page 7: what".
func (d *Damage) Error() string { return fmt.Sprintf("page %d: %s", d.Page, d.What) }

func damage(page uint64, format string, args ...any) error {
	return &Damage{page, fmt.Sprintf(format, args...)}
}

// Layout says which buckets a file is to have. Buckets in the root that it does not name are free to hold anything.
type Layout struct {
	Plain  []string // buckets in the root that hold no buckets
	Nested string   // the one bucket in the root that holds nothing but buckets, which hold none themselves
}
