// Package simtest runs package tpm on the simulator, which needs cgo and
// libssl-dev and exists once in a process.
package simtest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
)

func TestSimulator(t *testing.T) {
	sim, err := simulator.Get()
	if err != nil {
		t.Fatal(err)
	}
	d := tpm.New(transport.FromReadWriteCloser(sim), "simulator")
	ctx := context.Background()
	const secret = "0123456789abcdef\x00tail"
	ask := func(context.Context, string) (signer.Secret, error) { return signer.NewSecret([]byte(secret)), nil }
	for i, alg := range []tpm.Algorithm{tpm.P256, tpm.P384, tpm.RSA2048} {
		for _, auth := range []string{"", secret} {
			t.Run(fmt.Sprint(alg, "/", auth != ""), func(t *testing.T) {
				h := tpm2.TPMHandle(0x81000000 + 16*i + len(auth)) //nolint:gosec // small
				f, err := tpm.CreateKey(ctx, d, tpm.CreateOptions{Algorithm: alg, Auth: signer.NewSecret([]byte(auth)), Persistent: h})
				if err != nil {
					t.Fatal(err)
				}
				opts := tpm.Options{}
				if auth != "" {
					opts.Auth = ask
				}
				file, err := tpm.OpenKey(ctx, d, f, opts)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				handle, err := tpm.OpenHandle(ctx, d, fmt.Sprintf("handle:%#x", uint32(h)), opts)
				if err != nil {
					t.Fatal(err)
				}
				defer handle.Close()
				for _, k := range []*tpm.Key{file, handle} {
					checkSigns(t, k)
				}
				// A reset takes what was loaded.
				if err := sim.Reset(); err != nil {
					t.Fatal(err)
				}
				for _, k := range []*tpm.Key{file, handle} {
					checkSigns(t, k)
				}
			})
		}
	}
	if err := d.Do(ctx, func(tp transport.TPM) error {
		for _, first := range []uint32{0x80000000, 0x02000000} {
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 16}.Execute(tp)
			if err != nil {
				return err
			}
			list, err := rsp.CapabilityData.Data.Handles()
			if err != nil {
				return err
			}
			// The Device keeps one session for the next key.
			if limit := map[uint32]int{0x80000000: 0, 0x02000000: 1}[first]; len(list.Handle) > limit {
				t.Errorf("left in the TPM: %#x", list.Handle)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func checkSigns(t *testing.T, k *tpm.Key) {
	t.Helper()
	message := []byte("a message")
	all := []crypto.SignerOpts{crypto.SHA256, crypto.SHA384}
	if _, ok := k.Public().(*rsa.PublicKey); ok {
		all = append(all, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	}
	for _, opts := range all {
		sig, err := crypto.SignMessage(k, rand.Reader, message, opts)
		if err != nil {
			t.Fatalf("%+v: %v", opts, err)
		}
		if err := signer.Verify(k.Public(), message, sig, opts); err != nil {
			t.Errorf("%+v: %v", opts, err)
		}
	}
}
