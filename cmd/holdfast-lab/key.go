package main

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

// A workloadKey is the workload's private key, and how holdfast finds it.
type workloadKey struct {
	signer crypto.Signer
	// reference is the value of holdfast's --private-key.
	reference string
	// flags are what else holdfast must be told to open the key.
	flags []string
	// variables are what else holdfast must find in its environment.
	variables []variable
	// install puts the certificate where the key is; nil if it stays a file.
	install func(*x509.Certificate) error
	// close ends what holds the key, after the command; nil if nothing does.
	close func() error
}

// newKey makes a workload's key of a kind and type that --key names: file,
// tpm, tpm-handle or pkcs11, then :TYPE, or TYPE alone for a file. What lies in
// files goes into dir.
func newKey(spec, dir string) (key *workloadKey, err error) {
	kind, algorithm, _ := strings.Cut(spec, ":")
	algorithm = cmp.Or(algorithm, defaultKeyType)
	switch kind {
	case "tpm":
		key, err = newTPMKey(algorithm, dir, 0)
	case "tpm-handle":
		key, err = newTPMKey(algorithm, dir, tpmHandle)
	case "pkcs11":
		key, err = newTokenKey(algorithm, dir)
	case "file":
		key, err = newSoftwareKey(algorithm, dir)
	default:
		key, err = newSoftwareKey(spec, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("workload's key: %w", err)
	}
	return key, nil
}

func newSoftwareKey(algorithm, dir string) (*workloadKey, error) {
	path := filepath.Join(dir, "device.key")
	key, err := newKeyFile(algorithm, path)
	if err != nil {
		return nil, err
	}
	return &workloadKey{signer: key, reference: path}, nil
}

const defaultKeyType = "ec-p256"

// keyTypes lists, for people, what newKey knows.
func keyTypes() string {
	return "file:TYPE or TYPE; tpm:TYPE in a TPM simulator, tpm-handle:TYPE persistent in it; pkcs11:TYPE on a SoftHSM token. TYPE is " +
		strings.Join(software.Algorithms(), ", ") + "; pkcs11 has no ml-dsa, tpm has " + strings.Join(tpmTypes(), ", ")
}

func newKeyFile(algorithm, path string) (crypto.Signer, error) {
	key, err := software.Generate(algorithm)
	if err != nil {
		return nil, err
	}
	text, err := software.MarshalPrivateKey(key, signer.Secret{})
	if err != nil {
		return nil, err
	}
	return key, software.WriteKeyFile(path, text)
}
