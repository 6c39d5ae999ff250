//go:build !linux

package main

func monotonicNow() string { return "" }
