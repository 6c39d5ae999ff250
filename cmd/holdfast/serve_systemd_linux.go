package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// monotonicNow is what Type=notify-reload wants beside RELOADING=1.
func monotonicNow() string {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return ""
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", t.Nano()/1000)
}
