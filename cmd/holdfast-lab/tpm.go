package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	gotpm "github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/cmd/holdfast-lab/internal/simulator"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
	"github.com/holdfast-iam/holdfast/tpm"
)

// tpmHandle is where a key of the kind tpm-handle is persistent.
const tpmHandle gotpm.TPMHandle = 0x81000001

// tpmAlgorithms are those that the simulator knows.
var tpmAlgorithms = map[string]tpm.Algorithm{
	"ec-p256": tpm.P256, "ec-p384": tpm.P384, "ec-p521": tpm.P521, "rsa-2048": tpm.RSA2048,
}

func tpmTypes() []string { return slices.Sorted(maps.Keys(tpmAlgorithms)) }

// newTPMKey starts a TPM with a socket in dir and makes a key in it that cannot
// leave it. What is needed to use the key is a file in dir or, unless handle is
// 0, the handle.
func newTPMKey(algorithm, dir string, handle gotpm.TPMHandle) (*workloadKey, error) {
	alg, ok := tpmAlgorithms[algorithm]
	if !ok {
		return nil, fmt.Errorf("the TPM simulator makes no key of type %q: it knows %s", algorithm, strings.Join(tpmTypes(), ", "))
	}
	sim, err := simulator.Start(filepath.Join(dir, "tpm"))
	if err != nil {
		return nil, err
	}
	// The lab is a client as holdfast is one: by the socket and its lock.
	device, err := tpm.Config{LockDir: dir}.Open(context.Background(), sim.TCTI())
	if err != nil {
		return nil, errors.Join(err, sim.Close())
	}
	k, err := createTPMKey(device, tpm.CreateOptions{Algorithm: alg, Persistent: handle}, filepath.Join(dir, "device.tss2.pem"))
	if err != nil {
		return nil, errors.Join(err, device.Close(), sim.Close())
	}
	k.close = func() error { return errors.Join(device.Close(), sim.Close()) }
	k.variables = []variable{
		{"TPM_DEVICE", sim.TCTI()},
		{"HOLDFAST_TPM_LOCK_DIR", dir},
		{"TPM2TOOLS_TCTI", sim.TCTI()},
		{"TPM2OPENSSL_TCTI", sim.TCTI()},
	}
	return k, nil
}

func createTPMKey(device *tpm.Device, options tpm.CreateOptions, path string) (*workloadKey, error) {
	ctx := context.Background()
	file, err := tpm.CreateKey(ctx, device, options)
	if err != nil {
		return nil, err
	}
	k := &workloadKey{reference: path}
	if options.Persistent != 0 {
		k.reference = fmt.Sprintf("%s:%#x", signer.SchemeHandle, uint32(options.Persistent))
	} else {
		text, err := file.PEM()
		if err != nil {
			return nil, err
		}
		if err := software.WriteKeyFile(path, text); err != nil {
			return nil, err
		}
	}
	k.signer, err = tpm.OpenKey(ctx, device, file, tpm.Options{})
	return k, err
}
