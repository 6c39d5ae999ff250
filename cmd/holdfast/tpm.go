package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// tpmLockDirEnv names a directory for the locks of TPMs without a resource
// manager, in place of the system's: containers that share such a TPM do not
// share that, and a TPM of a moment should leave nothing there.
const tpmLockDirEnv = "HOLDFAST_TPM_LOCK_DIR"

// openTPM opens the TPM that the flags name, once for each.
func (a *app) openTPM(ctx context.Context, f *identityFlags) (*tpm.Device, error) {
	if d := a.tpms[f.tpmDevice]; d != nil {
		return d, nil
	}
	d, err := tpm.Config{Pins: newPins(), Hints: tpmHints, LockDir: os.Getenv(tpmLockDirEnv)}.Open(ctx, f.tpmDevice)
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

// expectTPMKey has the TPM begin with what the key needs first, while the rest
// is being read, if the key is one in a TPM that asks nobody for anything. It
// says nothing of what is wrong: who opens the key will.
func (a *app) expectTPMKey(ctx context.Context, f *sessionFlags) bool {
	ref := signer.ParseReference(cmp.Or(f.privateKey, f.certificate))
	if ref.Scheme != signer.SchemeFile || f.timeout <= 0 || f.tpmOwnerAuth.Given() || f.tpmStorageAsks() {
		return false
	}
	text, err := readRegular(ref.Value)
	defer clear(text)
	if err != nil || !bytes.Contains(text, []byte(tpm.PEMType)) || bytes.Count(text, []byte("-----BEGIN ")) != bytes.Count(text, []byte("-----BEGIN CERTIFICATE"))+1 {
		return false
	}
	device, err := a.openTPM(ctx, &f.identityFlags)
	return err == nil && device.Expect(ctx, text, time.Duration(f.timeout))
}

// openTPMFile opens the key in a TPM that a key file is of.
func (a *app) openTPMFile(ctx context.Context, ref signer.Reference, file *tpm.KeyFile, f *identityFlags) (*tpm.Key, error) {
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return nil, err
	}
	o := f.tpmOptions(a)
	o.Name, o.Brief = ref.String(), a.oneSignature
	if file.Policy != nil {
		if o.Inputs.Expected, err = policy.ReadSnapshot(ref.Value); err != nil {
			slog.Debug("PCR values the key was bound to", "error", err.Error()) // they are for explanations only
		}
	}
	key, err := tpm.OpenKey(ctx, device, file, o)
	if err != nil {
		return nil, err
	}
	if key, err = asked(ctx, key); err == nil && a.oneSignature {
		key.Preload(ctx)
	}
	return key, err
}

// openTPMHandle opens a persistent key. It says nothing of a password, so that
// none is asked for: one is used if the flags bring it.
func openTPMHandle(ctx context.Context, a *app, ref signer.Reference, _ crypto.PublicKey, f *identityFlags) (material, error) {
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return material{}, err
	}
	o := f.tpmOptions(a)
	o.Name, o.Brief = ref.String(), a.oneSignature
	if f.tpmKeyPassword == "" && !f.tpmAuth.Given() {
		o.Auth = nil
	}
	key, err := tpm.OpenHandle(ctx, device, ref.Value, o)
	if err != nil {
		return material{}, err
	}
	if key, err = asked(ctx, key); err != nil {
		return material{}, err
	}
	return material{key: key}, nil
}

// asked returns the key with its password, if it wants one: a person is not to
// be asked while the TPM waits.
func asked(ctx context.Context, key *tpm.Key) (*tpm.Key, error) {
	if err := key.Ask(ctx); err != nil {
		closeKey(key)
		return nil, err
	}
	return key, nil
}

// readTPMCertificates reads certificates from an NV index.
func readTPMCertificates(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) ([]*x509.Certificate, error) {
	index, err := tpm.ParseNVIndex(ref.Value)
	if err != nil {
		return nil, &classed{err, errUsage}
	}
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return nil, err
	}
	return tpm.ReadCertificates(ctx, device, index, tpm.NVOptions{OwnerAuth: f.tpmOptions(a).OwnerAuth})
}

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
