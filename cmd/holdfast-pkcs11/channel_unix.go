//go:build cgo && unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// channel returns the pipes that holdfast left as descriptors 3 and 4.
func channel() (in, out *os.File, ok bool) {
	for fd := 3; fd <= 4; fd++ {
		var stat unix.Stat_t
		if unix.Fstat(fd, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
			return nil, nil, false
		}
		unix.CloseOnExec(fd)
	}
	return os.NewFile(3, "requests"), os.NewFile(4, "replies"), true
}
