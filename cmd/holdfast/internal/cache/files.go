package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Files keeps each entry in a file of mode 0600 in Dir, which must be the
// user's own ([RuntimeDir]). Entries are plain text.
type Files struct{ Dir string }

const (
	fileSuffix = ".session"
	// maxFile is more than any entry has.
	maxFile = 64 << 10
)

// Name returns "file".
func (*Files) Name() string { return "file" }

func (s *Files) path(key string) string { return filepath.Join(s.Dir, key+fileSuffix) }

// Get implements [Store]. A file that others could have written or read, or
// a symbolic link, is an error.
func (s *Files) Get(key string) ([]byte, error) {
	f, err := os.OpenFile(s.path(key), os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || !private(info) {
		return nil, fmt.Errorf("%s: not a file of this user's alone", f.Name())
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// Put implements [Store]. It also removes entries that have expired: nothing
// else does.
func (s *Files) Put(key string, entry []byte, expires time.Time) error {
	s.sweep()
	f, err := os.CreateTemp(s.Dir, "new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(entry)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	// The time stamp tells sweep how long the file is of use.
	if err == nil {
		err = os.Chtimes(f.Name(), expires, expires)
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path(key))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one to tell
	}
	return err
}

// sweep removes expired entries, and what a killed Put left.
func (s *Files) sweep() {
	entries, _ := os.ReadDir(s.Dir)
	for _, e := range entries {
		age := time.Duration(0)
		if strings.HasPrefix(e.Name(), "new-") {
			age = time.Minute
		} else if !strings.HasSuffix(e.Name(), fileSuffix) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > age {
			_ = os.Remove(filepath.Join(s.Dir, e.Name())) // another may have been faster
		}
	}
}

// List implements [Store].
func (s *Files) List() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	var keys []string
	for _, e := range entries {
		if key, ok := strings.CutSuffix(e.Name(), fileSuffix); ok {
			keys = append(keys, key)
		}
	}
	return keys, err
}

// Delete implements [Store].
func (s *Files) Delete(key string) error {
	err := os.Remove(s.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
