package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

func openTokenKey(ctx context.Context, a *app, ref signer.Reference, hint crypto.PublicKey, f *identityFlags) (material, error) {
	host, uri, err := a.openModule(ctx, ref, f)
	if err != nil {
		return material{}, err
	}
	key, found, err := host.OpenIdentity(ctx, uri, hint, f.tokenOptions())
	if err != nil {
		return material{}, err
	}
	return material{key, parsed(found)}, nil
}

func readTokenCertificates(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) ([]*x509.Certificate, error) {
	host, uri, err := a.openModule(ctx, ref, f)
	if err != nil {
		return nil, err
	}
	found, err := host.Certificates(ctx, uri, f.tokenOptions())
	if err != nil {
		return nil, err
	}
	certs := parsed(found)
	if len(certs) == 0 {
		return nil, signer.WithHint(fmt.Errorf("%s: %w", ref, signer.ErrCertificateNotFound), "holdfast list shows what the tokens hold")
	}
	return certs, nil
}

func parsed(found []pkcs11.Certificate) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, c := range found {
		if c.X509 != nil {
			certs = append(certs, c.X509)
		}
	}
	return certs
}

// openModule parses a pkcs11: reference and starts the host of its module,
// once for each module.
func (a *app) openModule(ctx context.Context, ref signer.Reference, f *identityFlags) (*hosted.Host, *pkcs11.URI, error) {
	uri, err := pkcs11.Parse(ref.Value)
	if err != nil {
		return nil, nil, &classed{err, errUsage}
	}
	if _, inline := uri.Get(pkcs11.AttrPINValue); inline && !a.warnedPIN {
		a.warnedPIN = true
		a.say.Warn("pin-value shows the PIN to every user of this machine: use pin-source=PATH or --pin file:PATH")
	}
	path, err := pkcs11.FindModule(uri, f.pkcs11Lib)
	if err != nil {
		return nil, nil, err
	}
	if host := a.modules[path]; host != nil {
		return host, uri, nil
	}
	host, err := hosted.Start(ctx, hosted.Config{Module: path, Logger: slog.Default(), Brief: a.oneSignature})
	if err != nil {
		return nil, nil, err
	}
	if a.modules == nil {
		a.modules = map[string]*hosted.Host{}
	}
	a.modules[path] = host
	return host, uri, nil
}

func (a *app) closeModules() {
	for _, host := range a.modules {
		_ = host.Close() // every result is out already
	}
}

// tokenOptions says how to log in. A PIN that does not come from a person is
// fetched once: a descriptor can be read only once.
func (f *identityFlags) tokenOptions() hosted.Options {
	var given *signer.Secret
	pin := func(ctx context.Context, object string) (signer.Secret, error) {
		if given != nil {
			return *given, nil
		}
		secret, err := f.pin.Read(ctx, object)
		if err == nil && !f.pin.Asks() {
			given = &secret
		}
		return secret, err
	}
	return hosted.Options{
		PIN: func(ctx context.Context, t pkcs11.Token) (signer.Secret, error) { return pin(ctx, t.String()) },
		KeyPIN: func(ctx context.Context, t pkcs11.Token, key *pkcs11.URI) (signer.Secret, error) {
			return pin(ctx, fmt.Sprintf("the key %s on %s", key, t))
		},
		ReusePIN:      f.reusePIN,
		AllowFinalTry: f.finalTry,
	}
}
