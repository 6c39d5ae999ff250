package tpm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// What one process learned of a password, the next one knows.
func TestRefusedPasswordIsRemembered(t *testing.T) {
	s := tpmtest.Start(t)
	s.Run("tpm2_dictionarylockout", "--setup-parameters", "--max-tries", "9", "--recovery-time", "600", "--lockout-recovery-time", "600")
	s.Clear()
	locks := t.TempDir()
	t.Setenv("HOLDFAST_TEST_LOCKS", locks)
	with := func(f *tpm.KeyFile, pin string) error {
		d := open(t, s.TCTI())
		defer d.Close()
		return sign(t, openKey(t, d, f, tpm.Options{Auth: password(pin, nil)}))
	}
	d := open(t, s.TCTI())
	pin := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234")), DA: true})
	other := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234")), DA: true})
	random := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	note := func() []string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(locks, "holdfast-tpm-refused-*"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	tries := func(want int) {
		t.Helper()
		d := open(t, s.TCTI())
		defer d.Close()
		if l := lockout(t, d); l.Failed != want {
			t.Errorf("%d tries were burnt, want %d", l.Failed, want)
		}
	}

	for range 3 {
		if err := with(pin, "guessed"); !errors.Is(err, signer.ErrPINIncorrect) {
			t.Errorf("a wrong PIN: %v", err)
		}
	}
	tries(1)
	files := note()
	if len(files) != 1 {
		t.Fatalf("notes: %q", files)
	}
	if err := with(pin, "guessed"); !strings.Contains(signer.Hint(err), files[0]) {
		t.Errorf("no word of the note: %s", signer.Hint(err))
	}
	text, err := os.ReadFile(files[0])
	if info, serr := os.Stat(files[0]); err != nil || serr != nil || info.Mode().Perm() != 0o600 || strings.Contains(string(text), "guessed") {
		t.Errorf("%v, %v, %q", err, serr, text)
	}

	// Another key's note says nothing, nor does an old one. The right PIN clears it.
	if err := with(other, "guessed"); !errors.Is(err, signer.ErrPINIncorrect) {
		t.Error(err)
	}
	tries(2)
	_, rest, _ := strings.Cut(string(text), " ")
	writeFile(t, files[0], fmt.Appendf(nil, "%d %s", time.Now().Add(-5*time.Hour).Unix(), rest))
	if err := with(pin, "guessed"); !errors.Is(err, signer.ErrPINIncorrect) || strings.Contains(err.Error(), "so soon") {
		t.Error(err)
	}
	if err := with(pin, "1234"); err != nil {
		t.Error(err)
	}
	if len(note()) != 1 {
		t.Errorf("notes: %q", note())
	}

	// One without protection may be tried as often as you like.
	for range 2 {
		if err := with(random, "guessed"); !errors.Is(err, signer.ErrPINIncorrect) || strings.Contains(err.Error(), "not tried again so soon") {
			t.Error(err)
		}
	}
	tries(3)
}
