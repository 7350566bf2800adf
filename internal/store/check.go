package store

import (
	"context"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/keepcache/keepcache/internal/errs"
)

// Checker runs bbolt's own check of a file's pages. The file cannot change until the process ends. Opening it reads
// only the meta pages. Check itself must run only on a file that another check has found sound: on a damaged one it
// takes unbounded time and memory, in a goroutine of bbolt that nobody can stop.
type Checker struct{ db *bolt.DB }

// NewChecker opens a file. The error is errs.ErrLocked if a process has it open for writing.
func NewChecker(path string) (*Checker, error) {
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		err = errs.ErrLocked
	}
	if err != nil {
		return nil, err
	}
	return &Checker{db}, nil
}

// Check calls found for each problem until found returns false.
func (c *Checker) Check(ctx context.Context, found func(problem error) bool) error {
	tx, err := c.db.Begin(false)
	if err != nil {
		return err
	}
	for problems := tx.Check(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case problem, ok := <-problems:
			if !ok || !found(problem) {
				return nil
			}
		}
	}
}
