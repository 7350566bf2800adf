// Package journal is an append-only log in one file beside a store. It makes a write survive a crash
// before the store has it: a piece is appended, optionally flushed, and when the store has taken it
// over, its room is used again. Replay hands back, in order, what the store has not seen.
//
// A piece is opaque bytes with a first and a last sequence number. The journal knows nothing else.
//
// # Promises
//
//   - What Append took survives the death of the process at any later moment.
//   - What Flush covered survives the loss of power.
//   - A piece comes back whole and unchanged, or not at all.
//   - What comes back is a prefix of what was appended, unless flushed bytes were damaged. Then the rest
//     is found again at the next block, and the report says which sequences may be missing.
//
// # Format, versions 1 and 2
//
// All integers are little endian. CRC is CRC-32C (Castagnoli, RFC 3720 appendix B.4), as computed by
// [hash/crc32.Update]. The file is a head of 16 KiB and any number of segments of equal size:
//
//	0                            head
//	16384                        the window, in version 2 only
//	16384 + window + i*segment   segment i, a whole number of blocks
//
// The head holds the same 64 bytes twice, at offsets 0 and 8192, and zeros between and after. It is
// written once, before the file gets its name, and never changed. One good copy is enough.
//
//	 0   8  magic "KCJRNL\r\n"
//	 8   4  format version, 1 or 2
//	12   4  block size in bytes: a power of two, 512 to 32768
//	16  16  identity of the store
//	32   4  segment size in bytes: a multiple of the block size, at most 1 GiB
//	36   4  window: zero in version 1; in version 2 the block size in bytes, or 4096 if that is more
//	40   8  start: every sequence in the file is greater
//	48   8  nonce, random for each file
//	56   4  zero
//	60   4  CRC of bytes 0 to 60
//
// Magic, version and the CRC at 60 stay where they are in every later version, so that an older program
// can tell a newer file from a damaged one.
//
// The window, from its beginning, is one block more: a copy of the block that was being written, or zeros. Which one it is tells the
// only number with which its header passes. Where the block at its own place has a lower epoch or no good header, or the same epoch and
// whole fragments not as far, the window counts in its stead. The writer stores to the window and copies it to its place
// when the block is full, before the next one begins, and before a flush; so what was flushed is always in its place.
//
// Blocks are numbered through the file from 0, without head and window. A block begins with a header of 40 bytes:
//
//	 0   4  CRC of bytes 4 to 40, started from S(block, 0)
//	 4   4  magic "KJB1"
//	 8   8  epoch: how many segments had been begun when this one was, itself included
//	16   8  flushed: the sequence up to which the journal was known to be on disk
//	24   8  released: the sequence up to which the store had taken over
//	32   8  previous: the highest sequence of any piece that begins before this block
//
// S(block, epoch) is the CRC of identity, nonce, block (8 bytes) and epoch (8 bytes), in this order. Two
// epochs of one block less than 2^32 apart never have the same S, and a CRC started from different values
// differs over equal bytes: so what an earlier use of a block left behind never passes for part of a later.
//
// Fragments follow without gaps, as in the log of LevelDB (doc/log_format.md), with other fields:
//
//	0   4  CRC of bytes 4 to the end of the fragment, started from S(block, epoch)
//	4   2  length of what follows this header, in bytes
//	6   1  type: 1 the whole piece, 2 its first fragment, 3 a middle one, 4 its last
//	7   1  zero
//	8      content
//
// The content of types 1 and 2 begins with
//
//	 0   8  first sequence
//	 8   8  last sequence, not below the first
//	16   8  flushed, as in the block header, when the piece was written
//	24   4  length of the piece in bytes, over all its fragments
//
// A piece never begins where fewer than 36 bytes, these two headers, are left of a block. A fragment that is
// not the last of its piece reaches to the end of its block. Where a piece ends and 36 bytes or more are left, eight
// zeros follow until the next one overwrites them.
//
// Segments are used in the order of their epochs, one greater each time, whatever their place in the
// file. A block whose epoch is below the highest in its segment is a leftover and does not count.
//
// A block whose header is bad is still used if a fragment right behind it passes with the epoch that is due.
//
// The greatest "flushed" found anywhere tells a torn tail from damage: a bad place ends the replay quietly
// if every sequence up to that mark was seen before it, and is damage otherwise. "released" tells
// whether the file still has all that follows a given sequence: it does if no "released" is greater.
//
// # Creation
//
// The head is written and synced under the name path + ".new", which is then renamed to path. The directory is
// synced before the first Flush returns. A journal that takes over what another one has gets all of that under the first name.
package journal
