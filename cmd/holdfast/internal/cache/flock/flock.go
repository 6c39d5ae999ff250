// Package flock locks a file between processes. The kernel holds the lock: it
// ends with the process, however that ends, so that no lock outlives its
// holder and none is ever stale. A lock file is empty and stays where it is;
// to remove it would let two processes lock two files of one name.
package flock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// ErrBusy says that another process holds the lock.
var ErrBusy = errors.New("locked by another process")

// A Lock is held until Unlock, or the end of the process.
type Lock struct{ f *os.File }

// Try takes the lock on path, a file of mode 0600 that it makes if needed, or
// returns [ErrBusy] at once. Two locks of one process exclude each other too.
func Try(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		if errors.Is(err, ErrBusy) {
			return nil, err
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f}, nil
}

// Wait is Try until the lock is free or ctx is done; it then returns an error
// that wraps [ErrBusy] and the cause.
func Wait(ctx context.Context, path string) (*Lock, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 32*time.Millisecond) {
		l, err := Try(path)
		if !errors.Is(err, ErrBusy) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w: %w", path, ErrBusy, context.Cause(ctx))
		case <-time.After(pause + rand.N(pause)):
		}
	}
}

// Unlock releases the lock. Unlocking a nil Lock does nothing.
func (l *Lock) Unlock() {
	if l != nil {
		l.f.Close() // the kernel drops the lock with the last descriptor
	}
}
