package main

import (
	"context"
	"crypto"
	"crypto/x509"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func openKeyFile(ctx context.Context, a *app, ref signer.Reference, _ crypto.PublicKey, f *identityFlags) (material, error) {
	c, err := software.ReadFile(ctx, ref.Value, a.fileOptions(f))
	if err != nil {
		return material{}, err
	}
	if len(c.Keys) == 0 {
		file, err := tpmKeyFile(ref, c.Other)
		if err != nil {
			return material{}, err
		}
		if file != nil {
			key, err := a.openTPMFile(ctx, ref, file, f)
			if err != nil {
				return material{}, err
			}
			return material{key, c.Certificates}, nil
		}
	}
	key, err := c.Key()
	return material{key, c.Certificates}, err
}

func readCertificateFile(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) ([]*x509.Certificate, error) {
	return software.ReadCertificates(ctx, ref.Value, a.fileOptions(f))
}
