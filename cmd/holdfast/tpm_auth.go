package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// tpmHints name the flags that bring a password that is missing.
var tpmHints = tpm.Hints{
	Key:    "give its password with --tpm-key-auth file:PATH, or another source",
	Parent: "give its password with --tpm-parent-auth file:PATH, or another source",
	Owner:  "give its password with --tpm-owner-auth file:PATH, or another source",
}

// tpmOptions are what the flags say of using a key.
func (f *identityFlags) tpmOptions(a *app) tpm.Options {
	o := tpm.Options{Auth: f.keyPassword}
	switch {
	case f.noTPMKeyPassword:
		// As aws_signing_helper: whatever a file says of a password.
		o.Auth = noPassword
	case f.tpmKeyPassword != "":
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
	o.Inputs.Signed = f.signedPCRs
	return o
}

// signedPCRs loads the signed PCR policies. A name without a directory is one in
// the current directory, as everywhere, before it is one of systemd's.
func (f *identityFlags) signedPCRs(context.Context) (*policy.SignedPCRs, error) {
	dirs := policy.SignedPCRsDirs()
	if f.pcrSignature != "" {
		here, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		dirs = slices.Insert(dirs, 0, here)
	}
	return policy.LoadSignedPCRs(f.pcrSignature, dirs)
}

func (f *identityFlags) keyPassword(ctx context.Context, object string) (signer.Secret, error) {
	secret, err := f.tpmAuth.Read(ctx, object)
	if errors.Is(err, signer.ErrPINRequired) && !f.tpmAuth.Given() {
		err = signer.WithHint(err, "give it with --tpm-key-auth file:PATH, fd:NUMBER, env:NAME or credential:NAME; "+
			"if the key has none, which files of tpm2_encodeobject leave open, with --no-tpm-key-password")
	}
	return secret, err
}

func noPassword(context.Context, string) (signer.Secret, error) { return signer.Secret{}, nil }

// tpmFileAsks reports whether using the key may ask a person for a password.
func (f *identityFlags) tpmFileAsks(file *tpm.KeyFile) bool {
	switch {
	case f.tpmStorageAsks():
		return true
	case f.tpmKeyPassword != "", f.noTPMKeyPassword, !f.tpmAuth.Asks(), file.EmptyAuth != nil && *file.EmptyAuth:
		return false
	case file.Policy != nil:
		p, err := policy.Parse(file.Public.NameAlg, file.Policy, file.AuthPolicy)
		return err != nil || p.NeedsAuth()
	}
	return true
}

// tpmHandleAsks is tpmFileAsks for a persistent key: without a word of a
// password, none is used.
func (f *identityFlags) tpmHandleAsks() bool {
	return f.tpmStorageAsks() || f.tpmKeyPassword == "" && f.tpmAuth.Given() && f.tpmAuth.Asks()
}

// tpmStorageAsks reports whether the passwords of what keys are stored below
// come from a person.
func (f *identityFlags) tpmStorageAsks() bool {
	return slices.ContainsFunc([]*term.Source{&f.tpmParentAuth, &f.tpmOwnerAuth}, func(s *term.Source) bool { return s.Given() && s.Asks() })
}

// tpmKeyIn returns the TPM's key in what a file holds, nil if there is none, or
// another private key.
func tpmKeyIn(text []byte) *tpm.KeyFile {
	if !bytes.Contains(text, []byte("-----BEGIN ")) {
		file, err := tpm.ParseKeyFile(text)
		if err != nil {
			return nil
		}
		return file
	}
	var found *tpm.KeyFile
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == tpm.PEMType && found == nil:
			file, err := tpm.ParseKeyFile(pem.EncodeToMemory(block))
			if err != nil {
				return nil
			}
			found = file
		case block.Type != tpm.PEMType && strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil
		}
	}
	return found
}
