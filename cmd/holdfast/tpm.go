package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// openTPM opens the TPM that the flags name, once for each.
func (a *app) openTPM(ctx context.Context, f *identityFlags) (*tpm.Device, error) {
	if d := a.tpms[f.tpmDevice]; d != nil {
		return d, nil
	}
	d, err := tpm.Config{Pins: newPins()}.Open(ctx, f.tpmDevice)
	if err != nil {
		return nil, err
	}
	if a.tpms == nil {
		a.tpms = map[string]*tpm.Device{}
	}
	a.tpms[f.tpmDevice] = d
	return d, nil
}

func (a *app) closeTPMs() {
	for spec, d := range a.tpms {
		delete(a.tpms, spec)
		if err := d.Close(); err != nil {
			slog.Debug("closing the TPM", "tpm", d.String(), "error", err.Error())
		}
	}
}

// tpmKeyFile returns the TPM's key among what a file holds, nil if there is
// none. An unencrypted key beside it comes first.
func tpmKeyFile(ref signer.Reference, others []*pem.Block) (*tpm.KeyFile, error) {
	for _, block := range others {
		if block.Type != tpm.PEMType {
			continue
		}
		file, err := tpm.ParseKeyFile(pem.EncodeToMemory(block))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		return file, nil
	}
	return nil, nil
}

// openTPMFile opens the key in a TPM that a key file is of.
func (a *app) openTPMFile(ctx context.Context, ref signer.Reference, file *tpm.KeyFile, f *identityFlags) (*tpm.Key, error) {
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return nil, err
	}
	o := f.tpmOptions(a)
	o.Name = ref.String()
	if f.noTPMKeyPassword {
		// As aws_signing_helper: whatever the file says of a password.
		o.Auth = noPassword
	}
	if file.Policy != nil {
		if o.Inputs.Expected, err = policy.ReadSnapshot(ref.Value); err != nil {
			slog.Debug("PCR values the key was bound to", "error", err.Error()) // they are for explanations only
		}
	}
	return tpm.OpenKey(ctx, device, file, o)
}

// openTPMHandle opens a persistent key. It says nothing of a password, so that
// none is asked for: one is used if the flags bring it.
func openTPMHandle(ctx context.Context, a *app, ref signer.Reference, _ crypto.PublicKey, f *identityFlags) (material, error) {
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return material{}, err
	}
	o := f.tpmOptions(a)
	o.Name = ref.String()
	if f.tpmKeyPassword == "" && !f.tpmAuth.Given() {
		o.Auth = nil
	}
	key, err := tpm.OpenHandle(ctx, device, ref.Value, o)
	if err != nil {
		return material{}, err
	}
	return material{key: key}, nil
}

// readTPMCertificates reads certificates from an NV index.
func readTPMCertificates(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) ([]*x509.Certificate, error) {
	index, err := tpm.ParseHandle(ref.Value)
	if err != nil {
		return nil, &classed{err, errUsage}
	}
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return nil, err
	}
	return tpm.ReadCertificates(ctx, device, index, tpm.NVOptions{OwnerAuth: f.tpmOptions(a).OwnerAuth})
}

// tpmOptions are what the flags say of using a key.
func (f *identityFlags) tpmOptions(a *app) tpm.Options {
	o := tpm.Options{Auth: f.tpmAuth.Read}
	if f.tpmKeyPassword != "" {
		o.Auth = func(context.Context, string) (signer.Secret, error) {
			a.say.Warn("--tpm-key-password shows the password to every user of this machine: use --tpm-key-auth file:PATH or another source")
			return signer.NewSecret([]byte(f.tpmKeyPassword)), nil
		}
	}
	if f.tpmParentAuth.Given() {
		o.ParentAuth = f.tpmParentAuth.Read
	}
	if f.tpmOwnerAuth.Given() {
		o.OwnerAuth = f.tpmOwnerAuth.Read
	}
	o.Inputs.Signed = func(context.Context) (*policy.SignedPCRs, error) {
		return policy.LoadSignedPCRs(f.pcrSignature, policy.SignedPCRsDirs())
	}
	return o
}

func noPassword(context.Context, string) (signer.Secret, error) { return signer.Secret{}, nil }

// pins keep the Names of TPMs' salt keys in the state directory. Without one,
// such as on a system that is read-only, they last as long as the program: a
// key that worked does not stop working because it cannot be written down.
type pins struct{ kept tpm.Pins }

func newPins() tpm.Pins {
	dir, err := stateDir()
	if err != nil {
		slog.Debug("TPM salt keys are not pinned", "error", err.Error())
		return nil
	}
	return pins{tpm.DirPins(dir)}
}

func (p pins) Check(device, key string, name []byte) error {
	err := p.kept.Check(device, key, name)
	if err == nil || errors.Is(err, tpm.ErrPinned) || errors.Is(err, signer.ErrMalformed) {
		return err
	}
	slog.Debug("TPM salt key is not pinned", "error", err.Error())
	return nil
}
