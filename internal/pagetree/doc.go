// Package pagetree reads the buckets of a bbolt file with ReadAt, without a lock and without a map, for readers
// beside a process that writes the file.
//
// It believes nothing. Each number that it reads is checked before it is used, each loop has a bound, and memory is
// taken only for what one page holds. What does not fit together is [ErrBroken]. Beside a writer that may only mean
// that a page was used again while it was read, and so may an answer that looks right: whoever reads has to find out
// whether the file has changed meanwhile, and read again if so. bbolt writes pages that belong to the state before last
// at the earliest, so a state is whole for as long as the newest meta page is its own.
//
// The layout of the pages is bbolt's, from its internal/common: numbers in the byte order of the machine,
//
//	page            id (8 bytes), flags (2), count (2), overflow (4), then count elements
//	branch element  position of the key from the element on (4), length of the key (4), page (8)
//	leaf element    flags (4), position (4), length of the key (4), length of the value (4)
//	bucket          the value of a leaf element with flag 1: root page (8), sequence (8), and where the root is 0,
//	                the one leaf page of the bucket
package pagetree
