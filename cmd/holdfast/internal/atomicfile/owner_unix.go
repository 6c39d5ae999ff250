//go:build unix

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives f the owner, the group and the mode of the file it is to
// replace.
func keepOwner(f *os.File, like fs.FileInfo) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	to, ok := like.Sys().(*syscall.Stat_t)
	if now, same := mine.Sys().(*syscall.Stat_t); ok && same && (to.Uid != now.Uid || to.Gid != now.Gid) {
		if err := f.Chown(int(to.Uid), int(to.Gid)); err != nil {
			return fmt.Errorf("keep its owner %d:%d: %w", to.Uid, to.Gid, err)
		}
	}
	return f.Chmod(like.Mode().Perm())
}

// SyncDir makes a rename last. File systems that cannot do that
// need not. The error wraps [ErrUnsure].
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		defer d.Close()
		err = d.Sync()
	}
	if err == nil || errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnsure, err)
}
