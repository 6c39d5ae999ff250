//go:build unix

package software_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func TestExposedKey(t *testing.T) {
	key, cert, _ := bundle(t)
	for _, test := range []struct {
		mode os.FileMode
		want string
	}{
		{0o600, ""}, {0o400, ""}, {0o640, "its group"}, {0o604, "everyone"}, {0o644, "everyone"}, {0o660, "its group"},
	} {
		path := write(t, append(key, cert...))
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		var warnings []string
		opts := software.Options{Warn: func(m string) { warnings = append(warnings, m) }}
		if _, err := software.ReadKey(t.Context(), path, opts); err != nil {
			t.Fatal(err)
		}
		switch {
		case test.want == "" && len(warnings) == 0:
		case test.want != "" && len(warnings) == 1 && strings.Contains(warnings[0], test.want) && strings.Contains(warnings[0], "chmod 600 "+path):
		default:
			t.Errorf("mode %o: warnings %q", test.mode, warnings)
		}
		warnings = nil
		if _, err := software.ReadCertificates(t.Context(), path, opts); err != nil || len(warnings) != 0 {
			t.Errorf("certificates: warnings %q, %v", warnings, err)
		}
	}
	// A file of certificates alone may be read by all, and so may one with a
	// key that is of no use without its TPM.
	tpm, err := os.ReadFile("../testdata/tpm/openssl-p256.pem")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{cert, tpm, append(tpm, cert...), pemToDER(t, tpm)} {
		path := write(t, text)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		opts := software.Options{Warn: func(m string) { t.Errorf("warning %q", m) }}
		if _, err := software.ReadFile(t.Context(), path, opts); err != nil {
			t.Error(err)
		}
	}
}

func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	big := write(t, make([]byte, 1<<20+1))
	for path, text := range map[string]string{
		dir:                         "is a directory",
		filepath.Join(dir, "none"):  "no such file",
		big:                         "1 MiB",
		write(t, nil):               "empty",
		"/dev/zero":                 "1 MiB",
		filepath.Join(dir, "a\nb"):  "a?b",
		filepath.Join(dir, "-x y'"): "no such file",
	} {
		_, err := software.ReadKey(t.Context(), path, software.Options{})
		if checkError(t, err, ""); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: error %v", path, err)
		}
	}
}

func TestPipe(t *testing.T) {
	key, _, _ := bundle(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		_, _ = w.Write(key[:50])
		_, _ = w.Write(key[50:])
		_ = w.Close()
	}()
	opts := software.Options{Warn: func(m string) { t.Errorf("warning %q", m) }}
	if _, err := software.ReadKey(t.Context(), fmt.Sprintf("/dev/fd/%d", r.Fd()), opts); err != nil {
		t.Error(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { _ = os.WriteFile(fifo, key, 0o600) }()
	if _, err := software.ReadKey(t.Context(), fifo, opts); err != nil {
		t.Error(err)
	}
}

// TestUnreadable runs itself again as another user, for root may read all.
func TestUnreadable(t *testing.T) {
	if path := os.Getenv("HOLDFAST_TEST_UNREADABLE"); path != "" {
		_, err := software.ReadKey(t.Context(), path, software.Options{})
		fmt.Printf("error: %v\nhint: %s\n", err, signer.Hint(err))
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("error %v", err)
		}
		return
	}
	if os.Geteuid() != 0 {
		key, _, _ := bundle(t)
		path := write(t, key)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		_, err := software.ReadKey(t.Context(), path, software.Options{})
		checkError(t, err, path)
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "mode 0000") {
			t.Errorf("error %v", err)
		}
		return
	}
	key, _, _ := bundle(t)
	dir, err := os.MkdirTemp("/tmp", "holdfast")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	closed := filepath.Join(dir, "private")
	for _, d := range []string{dir, closed} {
		if err := errors.Join(os.MkdirAll(d, 0o700), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	file, inner, exe := filepath.Join(dir, "key.pem"), filepath.Join(closed, "key.pem"), filepath.Join(dir, "test")
	if err := errors.Join(os.WriteFile(file, key, 0o600), os.WriteFile(inner, key, 0o600), os.WriteFile(exe, read(t, os.Args[0]), 0o755), os.Chmod(closed, 0o700)); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		file:  "it is root's with mode 0600, and holdfast runs as 54321",
		inner: "the directory " + closed + " is root's with mode 0700, and holdfast runs as 54321",
	} {
		cmd := exec.Command(exe, "-test.run=^TestUnreadable$", "-test.v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_UNREADABLE="+path, "TMPDIR=/tmp")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), text) || !strings.Contains(string(out), "hint: run holdfast as root") {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}
