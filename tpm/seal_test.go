package tpm_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func seal(t *testing.T, d *tpm.Device, data []byte) *tpm.Sealed {
	t.Helper()
	s, err := tpm.Seal(testContext(t), d, data, tpm.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	der, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = tpm.ParseSealed(der); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeal(t *testing.T) {
	for _, size := range []int{1, 32, tpm.MaxSealed} {
		s := tpmtest.Start(t)
		proxy := tpmtest.NewProxy(t, s)
		d := open(t, proxy.Spec())
		data := make([]byte, size)
		_, _ = rand.Read(data)
		sealed := seal(t, d, data)
		check := func(d *tpm.Device, when string) {
			t.Helper()
			if got, err := sealed.Unseal(testContext(t), d, tpm.SealOptions{}); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %x, %v; want %x", when, got, err, data)
			}
		}
		check(d, "at once")
		s.Reset()
		check(d, "after a reset")
		if size > 8 && proxy.Saw(data) {
			t.Error("the data travelled in the clear")
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		s.Kill()
		s.Launch()
		check(open(t, s.TCTI()), "after a restart, to another process")
		s.CheckEmpty()
	}
}

func TestSealedElsewhere(t *testing.T) {
	_, d := start(t)
	_, other := start(t)
	sealed := seal(t, d, []byte("mine"))
	if data, err := sealed.Unseal(testContext(t), other, tpm.SealOptions{}); err == nil || signer.Hint(err) == "" {
		t.Errorf("another TPM gave %q, %v", data, err)
	}
	for _, size := range []int{0, tpm.MaxSealed + 1} {
		if _, err := tpm.Seal(testContext(t), d, make([]byte, size), tpm.SealOptions{}); err == nil {
			t.Errorf("%d bytes were sealed", size)
		}
	}
}

func TestSealWithOwnerPassword(t *testing.T) {
	s, d := start(t)
	s.Run("tpm2_changeauth", "-c", "owner", "the owner's own")
	opts := tpm.SealOptions{OwnerAuth: password("the owner's own", nil)}
	sealed, err := tpm.Seal(testContext(t), d, []byte("mine"), opts)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := sealed.Unseal(testContext(t), d, opts); err != nil || string(data) != "mine" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := sealed.Unseal(testContext(t), d, tpm.SealOptions{}); !errors.Is(err, signer.ErrPINRequired) {
		t.Errorf("without the owner's password: %v", err)
	}
	s.CheckEmpty()
}

func TestParseSealed(t *testing.T) {
	_, d := start(t)
	good, err := seal(t, d, []byte("mine")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := tpm.ParseSealed(good[:n]); err == nil {
			t.Errorf("its first %d bytes are taken", n)
		}
	}
	if _, err := tpm.ParseSealed(append(good, 0)); !errors.Is(err, signer.ErrMalformed) {
		t.Errorf("a byte too many: %v", err)
	}
	key, err := create(t, d, tpm.CreateOptions{}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.ParseSealed(key); !errors.Is(err, signer.ErrUnsupportedKey) {
		t.Errorf("a signing key: %v", err)
	}
	damaged := bytes.Clone(good)
	damaged[len(damaged)-1] ^= 1
	s, err := tpm.ParseSealed(damaged)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := s.Unseal(testContext(t), d, tpm.SealOptions{}); err == nil {
		t.Errorf("damaged %s gave %q", hex.EncodeToString(damaged[:4]), data)
	}
}
