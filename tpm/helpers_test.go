package tpm_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// open opens a TPM whose lock is the test's own.
func open(t testing.TB, spec string) *tpm.Device {
	t.Helper()
	d, err := tpm.Config{LockDir: lockDir(t)}.Open(testContext(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func lockDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_TEST_LOCKS")
	if dir == "" {
		dir = t.TempDir()
	}
	return dir
}

func start(t testing.TB) (*tpmtest.TPM, *tpm.Device) {
	t.Helper()
	s := tpmtest.Start(t)
	return s, open(t, s.TCTI())
}

func create(t testing.TB, d *tpm.Device, opts tpm.CreateOptions) *tpm.KeyFile {
	t.Helper()
	f, err := tpm.CreateKey(testContext(t), d, opts)
	if err != nil {
		t.Fatal(err)
	}
	return reparse(t, f)
}

// reparse writes a key file and reads it.
func reparse(t testing.TB, f *tpm.KeyFile) *tpm.KeyFile {
	t.Helper()
	data, err := f.PEM()
	if err != nil {
		t.Fatal(err)
	}
	f, err = tpm.ParseKeyFile(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readKeyFile(t testing.TB, path string) *tpm.KeyFile {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tpm.ParseKeyFile(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func writeKeyFile(t testing.TB, dir string, f *tpm.KeyFile) string {
	t.Helper()
	data, err := f.PEM()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "holdfast.pem")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openKey(t testing.TB, d *tpm.Device, f *tpm.KeyFile, opts tpm.Options) *tpm.Key {
	t.Helper()
	k, err := tpm.OpenKey(testContext(t), d, f, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func openHandle(t testing.TB, d *tpm.Device, ref string, opts tpm.Options) *tpm.Key {
	t.Helper()
	k, err := tpm.OpenHandle(testContext(t), d, ref, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// password answers with s, and counts how often it was asked.
func password(s string, asked *int) tpm.AuthFunc {
	return func(context.Context, string) (signer.Secret, error) {
		if asked != nil {
			*asked++
		}
		return signer.NewSecret([]byte(s)), nil
	}
}

// sign signs once, without a check of what comes out.
func sign(t testing.TB, k *tpm.Key) error {
	t.Helper()
	digest := crypto.SHA256.New().Sum(nil)
	sig, err := k.Sign(nil, digest, crypto.SHA256)
	if err == nil && !verifies(k.Public(), digest, sig) {
		t.Error("the signature does not verify")
	}
	return err
}

func verifies(pub crypto.PublicKey, digest, sig []byte) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest, sig) == nil
	}
	return false
}

// checkSigns makes a signature of every kind the key should.
func checkSigns(t testing.TB, k *tpm.Key) {
	t.Helper()
	message := []byte("a message")
	all := []crypto.SignerOpts{crypto.SHA256, crypto.SHA384, crypto.SHA512}
	if _, ok := k.Public().(*rsa.PublicKey); ok {
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			all = append(all, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h},
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: h})
		}
	}
	for _, opts := range all {
		sig, err := crypto.SignMessage(k, rand.Reader, message, opts)
		if err != nil {
			t.Errorf("%v %+v: %v", opts.HashFunc(), opts, err)
			continue
		}
		if err := signer.Verify(k.Public(), message, sig, opts); err != nil {
			t.Errorf("%v %+v: %v", opts.HashFunc(), opts, err)
		}
	}
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
