//go:build unix

package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestFiles(t *testing.T) {
	s := newCache(t).Store.(*Files)
	a, b := Key("a"), Key("b")
	later := time.Now().Add(time.Hour)
	for _, text := range []string{"one", "two"} {
		if err := s.Put(a, []byte(text), later); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(a); string(got) != text || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := s.Get(b); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	info, err := os.Stat(s.path(a))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// Expired entries and what a killed process left go with the next Put.
	if err := os.WriteFile(filepath.Join(s.Dir, "new-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	for _, err := range []error{os.Chtimes(filepath.Join(s.Dir, "new-1"), long, long), os.Chtimes(s.path(a), long, long), s.Put(b, []byte("b"), later)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := s.List(); !slices.Equal(keys, []string{b}) || err != nil {
		t.Error(keys, err)
	}
	if left, _ := os.ReadDir(s.Dir); len(left) != 1 {
		t.Error(left)
	}
	for range 2 {
		if err := s.Delete(b); err != nil {
			t.Error(err)
		}
	}
}

func TestFilesOfOthersAreNotRead(t *testing.T) {
	s, key := newCache(t).Store.(*Files), Key("a")
	put := func() {
		if err := s.Put(key, []byte("x"), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func() error{
		"readable by the group": func() error { return os.Chmod(s.path(key), 0o640) },
		"of another owner":      func() error { return os.Chown(s.path(key), 12345, -1) },
		"a link": func() error {
			return errors.Join(os.Rename(s.path(key), s.path(key)+"-"), os.Symlink(s.path(key)+"-", s.path(key)))
		},
		"a directory": func() error { return errors.Join(os.Remove(s.path(key)), os.Mkdir(s.path(key), 0o700)) },
	} {
		if os.Getuid() != 0 && name == "of another owner" {
			continue // only root can give a file away
		}
		os.RemoveAll(s.path(key))
		put()
		if err := spoil(); err != nil {
			t.Fatal(name, err)
		}
		if text, err := s.Get(key); err == nil || text != nil {
			t.Errorf("%s: read as %q", name, text)
		}
	}
}

func TestRuntimeDir(t *testing.T) {
	base := t.TempDir()
	parent := filepath.Join(base, "run")
	if err := os.Mkdir(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", parent)
	dir, err := RuntimeDir()
	if err != nil || dir != filepath.Join(parent, "holdfast") {
		t.Fatal(dir, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	// Where others may write or look, it is not.
	for name, spoil := range map[string]func() error{
		"a parent that others write to": func() error { return os.Chmod(parent, 0o777) },
		"a directory others can enter":  func() error { return os.Chmod(dir, 0o755) },
		"a link":                        func() error { return errors.Join(os.Remove(dir), os.Symlink(base, dir)) },
	} {
		os.RemoveAll(dir)
		if err := errors.Join(os.Chmod(parent, 0o700), os.Mkdir(dir, 0o700), spoil()); err != nil {
			t.Fatal(name, err)
		}
		if got, err := RuntimeDir(); got == dir {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
}
