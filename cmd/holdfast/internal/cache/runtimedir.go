package cache

import (
	"fmt"
	"os"
	"path/filepath"
)

// RuntimeDir returns a directory for files that hold secrets and do not
// survive a reboot, and makes it if needed: "holdfast" in XDG_RUNTIME_DIR, in
// /run/user/UID or, for root, in /run; in the user's own temporary directory
// on macOS, and in the local application data on Windows. The parent is one
// that only the user (or root) can write to; the directory is the user's and
// nobody else can enter it. Where there is none, the error wraps
// [ErrUnavailable].
func RuntimeDir() (string, error) {
	for _, parent := range runtimeParents() {
		if !trusted(parent) {
			continue
		}
		if dir := filepath.Join(parent, "holdfast"); ownDir(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("runtime directory: %w: XDG_RUNTIME_DIR names no directory of this user's own", ErrUnavailable)
}

// LockDir returns a directory for locks: [RuntimeDir], else holdfast-UID in the
// directory for temporary files, which anybody may write to: it is used only
// if it is the user's own, or else "" is returned. A stranger who takes the
// name first gains nothing from it, and locks hold no secrets.
func LockDir() string {
	if dir, err := RuntimeDir(); err == nil {
		return dir
	}
	if dir := filepath.Join(os.TempDir(), fmt.Sprintf("holdfast-%d", os.Getuid())); ownDir(dir) {
		return dir
	}
	return ""
}

// OwnDir makes dir if needed, which nobody but this user can enter, and what it
// lies in. The error wraps [ErrUnavailable].
func OwnDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !ownDir(dir) {
		return fmt.Errorf("%s: %w: not a directory of this user's alone", dir, ErrUnavailable)
	}
	return nil
}

// ownDir makes dir if needed and checks that it is a directory, no link, of
// this user's alone.
func ownDir(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil {
		if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			return false
		}
		if info, err = os.Lstat(dir); err != nil {
			return false
		}
	}
	return info.IsDir() && private(info)
}
