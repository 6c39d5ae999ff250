//go:build linux && cgo

package hosted_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"os"
	"os/exec"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

// BenchmarkSign compares a signature through the host with one in process.
func BenchmarkSign(b *testing.B) {
	r := newRig(b).withKey("ec-p256")
	r.env = append(r.env, "FAULTY_DIR=") // SoftHSM alone
	digest := sha256.Sum256([]byte("holdfast"))
	run := func(key crypto.Signer) func(*testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	h := r.start(softhsm(b))
	hostedKey, err := h.OpenKey(b.Context(), r.uri, nil, r.options(userPIN))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("hosted", run(hostedKey))
	b.Setenv("SOFTHSM2_CONF", r.env[0][len("SOFTHSM2_CONF="):])
	m, err := cryptoki.Load(softhsm(b))
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	key, err := m.OpenKey(b.Context(), r.uri, nil, cryptoki.Options{PIN: func(context.Context, pkcs11.Token) (signer.Secret, error) {
		return signer.NewSecret([]byte(userPIN)), nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer key.Close()
	b.Run("in-process", run(key))
}

// BenchmarkCold starts a host, opens a key, signs once and closes; beside it,
// the least that a process costs.
func BenchmarkCold(b *testing.B) {
	r := newRig(b).withKey("ec-p256")
	module := softhsm(b)
	b.Run("hosted", func(b *testing.B) {
		for b.Loop() {
			h, err := hosted.Start(context.Background(), r.config(module))
			if err != nil {
				b.Fatal(err)
			}
			k, _, err := h.OpenIdentity(b.Context(), r.uri, nil, r.options(userPIN))
			if err != nil {
				b.Fatal(err)
			}
			if err := checkSignature(k); err != nil {
				b.Fatal(err)
			}
			h.Close()
		}
	})
	for name, args := range map[string][]string{"version": {built.host, "--version"}, "true": {"/bin/true"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Env = []string{"HOME=" + os.Getenv("HOME")}
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
