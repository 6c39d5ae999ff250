//go:build !linux

package cache

import (
	"fmt"
	"runtime"
	"time"
)

// Keyring is a store of Linux only.
type Keyring struct{}

// OpenKeyring returns an error that wraps [ErrUnavailable].
func OpenKeyring() (*Keyring, error) {
	return nil, fmt.Errorf("kernel keyring: %w: %s has none", ErrUnavailable, runtime.GOOS)
}

// KeyringIsPrivate returns false.
func KeyringIsPrivate() bool { return false }

// Name implements [Store], as do the other methods; there is nothing to call them on.
func (*Keyring) Name() string                        { return "keyring" }
func (*Keyring) Get(string) ([]byte, error)          { return nil, ErrUnavailable }
func (*Keyring) Put(string, []byte, time.Time) error { return ErrUnavailable }
func (*Keyring) List() ([]string, error)             { return nil, ErrUnavailable }
func (*Keyring) Delete(string) error                 { return ErrUnavailable }
