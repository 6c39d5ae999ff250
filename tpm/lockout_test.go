package tpm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func TestLockout(t *testing.T) {
	s, d := start(t)
	s.Run("tpm2_dictionarylockout", "--setup-parameters", "--max-tries", "5", "--recovery-time", "600", "--lockout-recovery-time", "600")
	s.Clear()
	f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234")), DA: true})
	with := func(pin string, asked *int) *tpm.Key {
		return openKey(t, d, f, tpm.Options{Auth: password(pin, asked)})
	}

	var asked int
	wrong := with("0000", &asked)
	for range 3 {
		if err := sign(t, wrong); !errors.Is(err, signer.ErrPINIncorrect) {
			t.Errorf("a wrong PIN: %v", err)
		}
	}
	if l := lockout(t, d); l.Failed != 1 || asked != 1 {
		t.Errorf("one wrong PIN cost %d tries, asked %d times", l.Failed, asked)
	}
	if err := sign(t, with("0000", nil)); !errors.Is(err, signer.ErrPINIncorrect) || lockout(t, d).Failed != 1 {
		t.Errorf("the same wrong PIN with another Key: %v, %+v", err, lockout(t, d))
	}
	for _, pin := range []string{"1111", "2222", "3333", "4444", "5555", "6666"} {
		_ = sign(t, with(pin, nil))
	}
	l := lockout(t, d)
	if l.Failed != 4 || l.Locked {
		t.Errorf("after many wrong PINs: %+v", l)
	}
	err := sign(t, with("1234", nil))
	if !errors.Is(err, signer.ErrPINFinalTry) || !strings.Contains(signer.Hint(err), "10m0s") {
		t.Errorf("with a try left: %v (%s)", err, signer.Hint(err))
	}

	// Another tool takes the last one.
	s.Run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-p", "x", "-c", "p.ctx")
	s.Clear()
	s.Run("tpm2_evictcontrol", "-C", "o", "-c", "p.ctx", "0x81000050")
	s.Clear()
	_, _ = s.Try("tpm2_create", "-C", "0x81000050", "-P", "y", "-u", "u", "-r", "r")
	s.Clear()
	err = sign(t, with("1234", nil))
	if !errors.Is(err, signer.ErrPINLocked) || !strings.Contains(err.Error(), "10m0s") || strings.Contains(err.Error(), "\n") {
		t.Errorf("locked: %v", err)
	}
	s.Run("tpm2_dictionarylockout", "--clear-lockout")
	s.Clear()
	if err := sign(t, with("1234", nil)); err != nil {
		t.Errorf("after the lock-out was cleared: %v", err)
	}
}

// A file that wrongly says that there is no password costs one try, not more.
func TestFalseEmptyAuth(t *testing.T) {
	s := tpmtest.Start(t)
	locks := t.TempDir()
	t.Setenv("HOLDFAST_TEST_LOCKS", locks)
	d := open(t, s.TCTI())
	f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234")), DA: true})
	empty := true
	f.EmptyAuth = &empty
	for range 3 {
		d := open(t, s.TCTI()) // another process would be no better
		if err := sign(t, openKey(t, d, f, tpm.Options{})); !errors.Is(err, signer.ErrPINRequired) {
			t.Error(err)
		}
	}
	if l := lockout(t, d); l.Failed != 1 {
		t.Errorf("%d tries were burnt", l.Failed)
	}
}
