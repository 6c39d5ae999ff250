//go:build !unix

package tpm

import (
	"context"
	"os"
)

// A lock does nothing here: Windows' TBS has a resource manager, and a software
// TPM on TCP is for one program at a time.
type lock struct{}

func newLock(string, place) *lock                      { return nil }
func (*lock) acquire(context.Context) (journal, error) { return journal{}, nil }
func (*lock) contended() bool                          { return false }
func (*lock) yield()                                   {}
func (*lock) record(registry, pending) error           { return nil }
func (*lock) recordBestEffort(registry, pending)       {}
func (*lock) release(bool) error                       { return nil }
func (*lock) close() error                             { return nil }

func lockDir() string { return os.TempDir() }
