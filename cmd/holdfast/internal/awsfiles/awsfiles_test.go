//go:build unix

package awsfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
)

func settingsOf(value string) []Setting {
	return []Setting{set("aws_access_key_id", value), set("aws_secret_access_key", value+value)}
}

func setProfile(t *testing.T, path, profile, value string) {
	t.Helper()
	if err := SetProfile(t.Context(), path, profile, settingsOf(value)); err != nil {
		t.Error(err, signer.Hint(err))
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSetProfileMakesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aws", "credentials")
	setProfile(t, path, "p", "x")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if dir, err := os.Stat(filepath.Dir(path)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Error(dir.Mode(), err)
	}
	if got, want := text(t, path), "[p]\naws_access_key_id = x\naws_secret_access_key = xx\n"; got != want {
		t.Errorf("%q", got)
	}
}

func TestSetProfileKeepsModeOwnerAndLinks(t *testing.T) {
	dir := t.TempDir()
	path, far := filepath.Join(dir, "credentials"), filepath.Join(dir, "far", "file")
	if err := errors.Join(os.Mkdir(filepath.Dir(far), 0o755), os.WriteFile(far, []byte("[a]\n"), 0o640), os.Chmod(far, 0o640),
		os.Symlink("far/link", path), os.Symlink("file", filepath.Join(dir, "far", "link"))); err != nil {
		t.Fatal(err)
	}
	owner := os.Getuid()
	if owner == 0 {
		owner = 12345
		if err := os.Chown(far, owner, 54321); err != nil {
			t.Fatal(err)
		}
	}
	setProfile(t, path, "p", "x")
	info, err := os.Lstat(far)
	if err != nil || info.Mode() != 0o640 || int(info.Sys().(*syscall.Stat_t).Uid) != owner {
		t.Errorf("%v %+v, %v", info.Mode(), info.Sys(), err)
	}
	if to, err := os.Readlink(path); to != "far/link" || err != nil {
		t.Error("the link is gone:", err)
	}
	if !strings.HasPrefix(text(t, far), "[a]\n\n[p]\n") {
		t.Errorf("%q", text(t, far))
	}
	// A link to what is not there yet.
	if err := os.Remove(far); err != nil {
		t.Fatal(err)
	}
	setProfile(t, path, "p", "y")
	if !strings.HasPrefix(text(t, far), "[p]\n") {
		t.Errorf("%q", text(t, far))
	}
}

func TestSetProfileRefuses(t *testing.T) {
	dir := t.TempDir()
	readOnly := filepath.Join(dir, "read-only")
	if err := errors.Join(os.WriteFile(readOnly, []byte("[a]\n"), 0o400), os.Mkdir(filepath.Join(dir, "directory"), 0o700), os.Symlink("loop", filepath.Join(dir, "loop"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"read-only": "is read-only (mode 0400)", "directory": "no regular file", "loop": "too many symbolic links", "read-only/x": "not a directory"} {
		err := SetProfile(t.Context(), filepath.Join(dir, name), "p", settingsOf("x"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text(t, readOnly) != "[a]\n" {
		t.Error("written all the same")
	}
}

func TestSetProfileSweeps(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cre[d]*")
	for _, name := range []string{".cre[d]*.holdfast-123", ".cred.holdfast-123", ".credx.holdfast-1"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	setProfile(t, path, "p", "x")
	if _, err := os.Stat(filepath.Join(dir, ".cre[d]*.holdfast-123")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("what a killed run left is still there")
	}
	if left, _ := os.ReadDir(dir); len(left) != 4 {
		t.Error(left)
	}
}

func TestSetProfileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte("# head\n[mine]\nregion = x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() { setProfile(t, path, fmt.Sprintf("p%d", i), "x") })
	}
	wg.Wait()
	got := text(t, path)
	if !strings.HasPrefix(got, "# head\n[mine]\nregion = x\n\n[p") || strings.Count(got, "aws_secret_access_key = xx\n") != 24 {
		t.Errorf("%q", got)
	}
}

// TestOthersEditsSurvive has somebody who knows no lock change the file at
// each moment of an edit.
func TestOthersEditsSurvive(t *testing.T) {
	const theirs = "[theirs]\nk = v\n"
	old := "[a]\nk = 1\n"
	both := func(t *testing.T, path string) {
		t.Helper()
		got := text(t, path)
		for _, want := range []string{"[theirs]\nk = v\n", "[a]\nk = 1\n", "[p]\naws_access_key_id = x\naws_secret_access_key = xx\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in %q", want, got)
			}
		}
	}
	for name, meddle := range map[string]func(t *testing.T, path string, calls int){
		"between read and rename": func(t *testing.T, path string, calls int) {
			if calls == 1 {
				if err := os.WriteFile(path, []byte(old+theirs), 0o600); err != nil {
					t.Error(err)
				}
			}
		},
		"by a rename of their own": func(t *testing.T, path string, calls int) {
			if calls == 1 {
				if err := errors.Join(os.WriteFile(path+".new", []byte(old+theirs), 0o600), os.Rename(path+".new", path)); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "credentials")
			if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
				t.Fatal(err)
			}
			calls := 0
			err := edit(t.Context(), path, func(text []byte) ([]byte, error) {
				calls++
				meddle(t, path, calls)
				return Set(text, "p", settingsOf("x"))
			})
			if err != nil || calls != 2 {
				t.Error(calls, err)
			}
			both(t, path)
		})
	}

	t.Run("into the replaced file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "credentials")
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := take(path)
		if err != nil {
			t.Fatal(err)
		}
		defer before.close()
		// What the AWS CLI does, with a rename between its open and its write.
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path+".new", []byte("[p]\n"), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = f.WriteString(old + theirs)
			f.Close()
		}()
		if lost := before.lost(); !bytes.Equal(lost, []byte(old+theirs)) {
			t.Fatalf("found %q", lost)
		}
		again, _, err := replace(path, []byte(old+theirs), func(text []byte) ([]byte, error) { return Set(text, "p", settingsOf("x")) })
		if again || err != nil {
			t.Error(again, err)
		}
		both(t, path)
	})
}
