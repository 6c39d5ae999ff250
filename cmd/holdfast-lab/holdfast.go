package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/holdfast-iam/holdfast/signer"
)

// findHoldfast returns the absolute path of the holdfast to use.
func findHoldfast(given string) (string, error) {
	if given != "" {
		path, err := exec.LookPath(given)
		if err != nil && !errors.Is(err, exec.ErrDot) {
			return "", fmt.Errorf("--holdfast: %w", err)
		}
		return filepath.Abs(path)
	}
	name := "holdfast"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	looked := "PATH"
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		beside := filepath.Join(filepath.Dir(self), name)
		if path, err := exec.LookPath(beside); err == nil {
			return path, nil
		}
		looked = beside + " and then on PATH"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", signer.WithHint(fmt.Errorf("holdfast is not there: looked for %s", looked),
			"install it beside holdfast-lab, or name it with --holdfast")
	}
	return filepath.Abs(path)
}
