package tpm_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// shapes are the ways to reach a TPM: with a lock, and as its only user.
var shapes = map[string]func(t *testing.T, s *tpmtest.TPM) *tpm.Device{
	"shared": func(t *testing.T, s *tpmtest.TPM) *tpm.Device { return open(t, s.TCTI()) },
	"alone":  func(_ *testing.T, s *tpmtest.TPM) *tpm.Device { return tpm.New(s, "alone") },
}

// Keys and their Device are closed while others sign.
func TestCloseWhileSigning(t *testing.T) {
	for name, dial := range shapes {
		t.Run(name, func(t *testing.T) {
			s := tpmtest.Start(t)
			d := dial(t, s)
			f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
			var wg sync.WaitGroup
			for range 8 {
				k := openKey(t, d, f, tpm.Options{Auth: password(longSecret, nil)})
				for range 3 {
					wg.Go(func() {
						for {
							if err := sign(t, k); err != nil {
								if !strings.Contains(err.Error(), "closed") {
									t.Error(err)
								}
								return
							}
						}
					})
				}
				wg.Go(func() {
					time.Sleep(rand.N(60 * time.Millisecond)) //nolint:gosec // not a secret
					if err := k.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			time.Sleep(rand.N(60 * time.Millisecond)) //nolint:gosec // not a secret
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			s.CheckEmpty()
		})
	}
}

// Signatures are given up at random moments, and others go on.
func TestGivenUp(t *testing.T) {
	for name, dial := range shapes {
		t.Run(name, func(t *testing.T) {
			s := tpmtest.Start(t)
			d := dial(t, s)
			f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234")), DA: true})
			var wg sync.WaitGroup
			for range 4 {
				k := openKey(t, d, f, tpm.Options{Auth: password("1234", nil)})
				wg.Go(func() {
					for range 60 {
						ctx, cancel := context.WithTimeout(context.Background(), rand.N(4*time.Millisecond)) //nolint:gosec // not a secret
						_, err := k.SignContext(ctx, make([]byte, 32), cryptoSHA256)
						cancel()
						if err != nil && !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
						}
					}
					if err := sign(t, k); err != nil {
						t.Error(err)
					}
					if err := k.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if l := lockout(t, d); l.Failed != 0 {
				t.Errorf("%d tries were burnt", l.Failed)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			s.CheckEmpty()
		})
	}
}

// A panic of the caller's leaves nothing in the TPM, and the Device usable.
func TestPanic(t *testing.T) {
	for name, dial := range shapes {
		t.Run(name, func(t *testing.T) {
			s := tpmtest.Start(t)
			d := dial(t, s)
			f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
			panics := func(use func()) {
				defer func() {
					if recover() == nil {
						t.Error("no panic")
					}
				}()
				use()
			}
			k := openKey(t, d, f, tpm.Options{Auth: func(context.Context, string) (signer.Secret, error) { panic("asked") }})
			panics(func() { _ = sign(t, k) })
			panics(func() {
				_ = d.Do(context.Background(), func(transport.TPM) error { panic("used") })
			})
			k = openKey(t, d, f, tpm.Options{Auth: password(longSecret, nil)})
			panics(func() {
				_ = k.WithHandle(context.Background(), func(*tpm.Loaded) error { panic("lent") })
			})
			if err := sign(t, k); err != nil {
				t.Error(err)
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			s.CheckEmpty()
		})
	}
}
