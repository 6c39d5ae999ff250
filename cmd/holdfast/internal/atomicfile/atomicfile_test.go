//go:build unix

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	for _, err := range []error{os.WriteFile(path, []byte("old"), 0o600), os.Chmod(path, 0o640), os.Symlink("file", link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := Replace(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "new" {
		t.Errorf("%q, %v", text, err)
	}
	was := make([]byte, 3)
	if _, err := old.Read(was); err != nil || string(was) != "old" {
		t.Errorf("who had opened it before reads %q, %v", was, err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link: %v, %v", info, err)
	}
	if info, err = os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
	if err := Replace(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := Replace(dir, nil); err == nil {
		t.Error("a directory was replaced")
	}
}

func TestWriteFails(t *testing.T) {
	if _, err := Write("/proc/file", "new-*", nil, nil); err == nil {
		t.Error("a file was made in /proc")
	}
	dir := filepath.Join(t.TempDir(), "none")
	if _, err := Write(filepath.Join(dir, "file"), "new-*", nil, nil); !errors.Is(err, fs.ErrNotExist) || signer.Hint(err) != "" {
		t.Errorf("no directory: %v", err)
	}
}
