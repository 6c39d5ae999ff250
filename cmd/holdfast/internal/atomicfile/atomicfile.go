// Package atomicfile puts files in the place of others in one step: whoever
// reads meanwhile has the old one or the new one, whole, and so has the disk
// after a crash.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast-iam/holdfast/signer"
)

// ErrUnsure: the new file is in place, and only that it lasts is in doubt.
var ErrUnsure = errors.New("written, but a crash of the machine may undo it")

// Replace puts text in the place of the file at path, with its mode, owner and
// group; a link stays a link. After an error that does not wrap [ErrUnsure] the
// file is as it was.
func Replace(path string, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	like, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !like.Mode().IsRegular() {
		return fmt.Errorf("%s: is no regular file", path)
	}
	temp, err := Write(path, "."+filepath.Base(path)+".*", text, like)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp) // the error that led here is the one to tell
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Write makes the file that is to replace target, beside it, with a name of the
// pattern ([os.CreateTemp]), and flushes it to the disk. It has mode 0600, or
// what like has.
func Write(target, pattern string, text []byte, like fs.FileInfo) (temp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(target), pattern) // mode 0600
	if err != nil {
		return "", explain(target, err)
	}
	if like != nil {
		err = keepOwner(f, like)
	}
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", explain(target, err)
	}
	return f.Name(), nil
}

// explain names the file that was to be written, not the temporary one.
func explain(target string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = fmt.Errorf("%s a new version: %w", pe.Op, pe.Err)
	}
	err = fmt.Errorf("%s: %w", target, err)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return signer.WithHint(err, "free space on its file system")
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return signer.WithHint(err, "its directory must be writable too: a new version is made there and put in its place")
	}
	return err
}
