package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// openApprover opens the key that approves. What it signs is checked: not every
// token is to be trusted with that.
func (a *app) openApprover(ctx context.Context, ref string, f *identityFlags) (crypto.Signer, error) {
	m, err := a.openKey(ctx, signer.ParseReference(ref), nil, f)
	if err != nil {
		return nil, err
	}
	if _, err := policy.AuthorizeBy(m.key.Public()); err != nil {
		closeKey(m.key)
		return nil, identityError(fmt.Errorf("%s: %w", ref, err))
	}
	return checkedSigner{m.key}, nil
}

// A checkedSigner verifies each signature before it is used.
type checkedSigner struct{ crypto.Signer }

func (s checkedSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := s.Signer.Sign(random, digest, opts)
	if err != nil {
		return nil, err
	}
	return sig, verifyDigest(s.Public(), digest, sig, opts.HashFunc())
}

func verifyDigest(pub crypto.PublicKey, digest, sig []byte, hash crypto.Hash) error {
	ok := false
	switch k := pub.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(k, hash, digest, sig) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, digest, sig)
	}
	if !ok {
		return errors.New("the signature that the approver's key made does not verify")
	}
	return nil
}

func (s checkedSigner) Close() error {
	closeKey(s.Signer)
	return nil
}
