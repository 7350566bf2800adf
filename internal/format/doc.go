// Package format has all bytes of a cache that are frozen: records with their options, the ops of the journal's log
// records, the rows and bbolt buckets of the file, and the moments that all of them speak of. It knows no file, no lock
// and no bbolt. The same is described for other readers in docs/file-format.md; a file that was written once opens for
// ever.
package format
