//go:build cgo && unix && !linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden makes sure that no core file holds a PIN.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	return nil
}
