//go:build unix

package cache

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

const noFollow = syscall.O_NOFOLLOW

// private reports whether info is of an object that this user owns and nobody
// else has any access to.
func private(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid() && info.Mode().Perm()&0o077 == 0
}

// trusted reports whether dir is a directory that this user owns and nobody
// else can write to.
func trusted(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() || !filepath.IsAbs(dir) {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid() && info.Mode().Perm()&0o022 == 0
}

func runtimeParents() []string {
	parents := []string{os.Getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", os.Getuid())}
	switch {
	case runtime.GOOS == "darwin":
		parents = append(parents, os.TempDir())
	case os.Getuid() == 0:
		parents = append(parents, "/run")
	}
	return parents
}
