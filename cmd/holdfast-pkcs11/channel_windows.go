//go:build cgo

package main

import "os"

// channel returns stdin and stdout, and sends to stderr what is printed.
func channel() (in, out *os.File, ok bool) {
	in, out = os.Stdin, os.Stdout
	os.Stdout = os.Stderr
	info, err := in.Stat()
	return in, out, err == nil && info.Mode()&os.ModeNamedPipe != 0
}

func harden() error { return nil }
