package store

import (
	"context"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/keepcache/keepcache/internal/errs"
)

// Checker has bbolt check the pages of a file, which it keeps from changing until the process ends. Opening it, bbolt looks at nothing
// but the meta pages; the check itself is only for a file that another has found sound: on any other it takes any amount of memory and
// time, in a goroutine of bbolt's own, where nobody can end it.
type Checker struct{ db *bolt.DB }

// NewChecker opens a file. The error is errs.ErrLocked where a process has it open to be changed.
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

// Check calls found for each problem until that returns false.
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
