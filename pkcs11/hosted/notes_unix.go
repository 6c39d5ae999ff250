//go:build unix

package hosted

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// stateDir is in a file system that a reboot empties, where there is one.
func stateDir() string {
	uid := strconv.Itoa(os.Getuid())
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "holdfast")
	}
	if dir := filepath.Join("/run/user", uid); isPrivate(dir) {
		return filepath.Join(dir, "holdfast")
	}
	return filepath.Join(os.TempDir(), "holdfast-"+uid)
}

// isPrivate reports whether dir is a directory of this user's that nobody else
// may enter.
func isPrivate(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
