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

// newKey makes a workload's key of a kind and type that --key names: TYPE for
// a file, pkcs11 or pkcs11:TYPE for a SoftHSM token. What lies in files goes
// into dir.
func newKey(spec, dir string) (*workloadKey, error) {
	kind, algorithm, _ := strings.Cut(spec, ":")
	if kind == "pkcs11" {
		key, err := newTokenKey(cmp.Or(algorithm, defaultKeyType), dir)
		if err != nil {
			return nil, fmt.Errorf("workload's key: %w", err)
		}
		return key, nil
	}
	if kind == "file" {
		spec = cmp.Or(algorithm, defaultKeyType)
	}
	path := filepath.Join(dir, "device.key")
	key, err := newKeyFile(spec, path)
	if err != nil {
		return nil, fmt.Errorf("workload's key: %w", err)
	}
	return &workloadKey{signer: key, reference: path}, nil
}

const defaultKeyType = "ec-p256"

// keyTypes lists, for people, what newKey knows.
func keyTypes() string {
	return "file:TYPE or TYPE, or pkcs11:TYPE on a SoftHSM token; TYPE is " + strings.Join(software.Algorithms(), ", ")
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
