//go:build unix

package tpm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// A signature that a branch without a password makes proves no password: the
// lock-out counters are read before one is presented.
func TestBranchProvesNothing(t *testing.T) {
	s, d := start(t)
	s.Run("tpm2_dictionarylockout", "--setup-parameters", "--max-tries", "3", "--recovery-time", "600", "--lockout-recovery-time", "600")
	s.Clear()
	boot, err := policy.Parse(tpm2.TPMAlgSHA256, boundTo(t, d, tpm.CreateOptions{}).Policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Either(boot, &policy.Policy{Hash: tpm2.TPMAlgSHA256, Steps: []policy.Step{policy.AuthValue{}}})
	if err != nil {
		t.Fatal(err)
	}
	opts := tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234")), DA: true}
	if opts.PolicyDigest, err = p.Digest(); err != nil {
		t.Fatal(err)
	}
	if opts.Policy, opts.AuthPolicy, err = p.Marshal(); err != nil {
		t.Fatal(err)
	}
	f := create(t, d, opts)
	k := openKey(t, d, f, tpm.Options{Auth: password("0000", nil)})
	if err := sign(t, k); err != nil {
		t.Errorf("in the state that wants no password: %v", err)
	}
	s.Run("tpm2_pcrextend", "16:sha256="+strings.Repeat("11", 32))
	for range 3 {
		if err := sign(t, k); !errors.Is(err, signer.ErrPINIncorrect) {
			t.Errorf("a wrong PIN: %v", err)
		}
	}
	if l := lockout(t, d); l.Failed != 1 {
		t.Errorf("%d tries were burnt", l.Failed)
	}
	s.Run("tpm2_pcrreset", "16")
	if err := sign(t, k); err != nil {
		t.Errorf("in the state that wants no password, again: %v", err)
	}
}

// PolicySecret of a hierarchy without a password, whatever that of another is.
func TestSecretOfHierarchies(t *testing.T) {
	s, d := start(t)
	s.Run("tpm2_changeauth", "-c", "o", "owner secret")
	owner := password("owner secret", nil)
	for _, h := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHEndorsement} {
		f := boundTo(t, d, tpm.CreateOptions{OwnerAuth: owner}, policy.Secret{Object: h, Name: tpm2.HandleName(h).Buffer})
		if err := sign(t, openKey(t, d, f, tpm.Options{OwnerAuth: owner})); err != nil {
			t.Errorf("PolicySecret of %#x: %v", uint32(h), err)
		}
	}
}

// An index that both its own password and the owner open is opened so that no
// lock-out try is at stake, and only one of plain data is written.
func TestNVIsCareful(t *testing.T) {
	s, d := start(t)
	ctx := testContext(t)
	s.Run("tpm2_nvdefine", "0x1800010", "-C", "o", "-s", "8", "-a", "ownerwrite|ownerread|authread|authwrite", "-p", "index secret")
	s.Clear()
	writeNV(t, s, "0x1800010", []byte("12345678"))
	if data, err := tpm.ReadNV(ctx, d, 0x1800010, tpm.NVOptions{}); err != nil || string(data) != "12345678" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := tpm.ReadNV(ctx, d, 0x1800010, tpm.NVOptions{Auth: password("index secret", nil)}); err != nil || string(data) != "12345678" {
		t.Errorf("by its own password: %q, %v", data, err)
	}
	if l := lockout(t, d); l.Failed != 0 {
		t.Errorf("%d tries were burnt", l.Failed)
	}
	s.Run("tpm2_nvdefine", "0x1800011", "-C", "o", "-g", "sha256", "-a", "ownerwrite|ownerread|authread|nt=extend")
	s.Clear()
	err := tpm.WriteCertificates(ctx, d, 0x1800011, certificates(t, 1), tpm.NVOptions{Overwrite: true})
	if err == nil || !strings.Contains(err.Error(), "extend") {
		t.Errorf("an index that is extended: %v", err)
	}
}

// Close forgets the password whether or not the TPM is to be had.
func TestCloseWhileInUse(t *testing.T) {
	s := tpmtest.Start(t)
	locks := t.TempDir()
	t.Setenv("HOLDFAST_TEST_LOCKS", locks)
	d := open(t, s.TCTI())
	k := openKey(t, d, create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))}), tpm.Options{Auth: password(longSecret, nil)})
	if err := sign(t, k); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(locks, "*.lock"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	f, err := os.OpenFile(paths[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { // waits until the lease ends
		t.Fatal(err)
	}
	began := time.Now()
	if err := k.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v, after %v", err, time.Since(began))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignContext(context.Background(), make([]byte, 32), cryptoSHA256); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}
}
