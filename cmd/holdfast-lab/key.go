package main

import (
	"crypto"
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
	// close ends what holds the key, after the command; nil if nothing does.
	close func() error
}

// newKey makes a workload's key of a type that --key names. What lies in
// files goes into dir. The types so far are those of package software; a
// simulated TPM or a token would be cases here.
func newKey(keyType, dir string) (*workloadKey, error) {
	path := filepath.Join(dir, "device.key")
	key, err := newKeyFile(keyType, path)
	if err != nil {
		return nil, fmt.Errorf("workload's key: %w", err)
	}
	return &workloadKey{signer: key, reference: path}, nil
}

// keyTypes lists, for people, the types that newKey knows.
func keyTypes() string { return strings.Join(software.Algorithms(), ", ") }

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
