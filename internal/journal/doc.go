// Package journal is an append-only log in one file beside a store. It makes a write survive a crash
// before the store has it: a log record is appended, optionally flushed, and when the store has taken it
// over, its room is used again. Replay hands back, in order, what the store has not seen.
//
// A log record is opaque bytes with a first and a last sequence number. The journal knows nothing else.
//
// # Promises
//
//   - What Append took survives the death of the process at any later moment.
//   - What Flush covered survives the loss of power.
//   - A log record comes back whole and unchanged, or not at all.
//   - What comes back is a prefix of what was appended, unless flushed bytes were damaged. Then the rest
//     is found again at the next block, and the report says which sequences may be missing.
//
// # Format
//
// Versions 1 and 2 are in docs/file-format.md, *The journal*, and frozen. What are revisions there are sequences here.
//
// # Creation
//
// The head is written and synced under the name path + ".new", which is then renamed to path. The directory is synced
// before the first Flush returns. A journal that takes over what another one has gets all of that under the first name.
package journal
