package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

// material is what a reference led to: one or both of a key and certificates.
type material struct {
	key   crypto.Signer
	certs []*x509.Certificate
}

// A backend opens references of one scheme.
type backend struct {
	// key opens a private key, and returns the certificates found with it.
	// Of several keys it takes the one for the hint, which may be nil.
	key func(ctx context.Context, a *app, ref signer.Reference, hint crypto.PublicKey, f *identityFlags) (material, error)
	// certificates reads certificates only.
	certificates func(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) ([]*x509.Certificate, error)
}

// backends wires in what can hold a key: scheme → opener.
func backends() map[string]backend {
	return map[string]backend{
		signer.SchemeFile:   {openKeyFile, readCertificateFile},
		signer.SchemePKCS11: {openTokenKey, readTokenCertificates},
		signer.SchemeHandle: {openTPMHandle, readTPMCertificates},
	}
}

// openIdentity follows the flags to a key and its certificate, and joins them.
func (a *app) openIdentity(ctx context.Context, f *identityFlags) (*signer.Identity, error) {
	certRef, keyRef := signer.ParseReference(f.certificate), signer.ParseReference(f.privateKey)
	if certRef.IsZero() && keyRef.IsZero() {
		return nil, &classed{signer.WithHint(errors.New("no certificate given"), "give --certificate, and --private-key unless the certificate's file holds the key"), errUsage}
	}
	if keyRef.IsZero() {
		keyRef = certRef
	}
	var certs []*x509.Certificate
	var err error
	if !certRef.IsZero() && certRef != keyRef {
		if certs, err = a.readCertificates(ctx, certRef, f); err != nil {
			return nil, err
		}
	}
	m, err := a.openKey(ctx, keyRef, likelyKey(certs), f)
	if err != nil {
		return nil, err
	}
	if certs == nil {
		certs = m.certs
	}
	identity, err := a.join(ctx, m.key, certs, certRef, keyRef, f)
	if err != nil {
		closeKey(m.key)
		return nil, identityError(err)
	}
	slog.Debug("identity", "key", signer.DescribeKey(identity.Public()), "subject", identity.Certificate().Subject.String(),
		"serial", fmt.Sprintf("%x", identity.Certificate().SerialNumber), "chain", len(identity.Chain()))
	return identity, nil
}

func (a *app) join(ctx context.Context, key crypto.Signer, certs []*x509.Certificate, certRef, keyRef signer.Reference, f *identityFlags) (*signer.Identity, error) {
	if len(certs) == 0 {
		if certRef.IsZero() {
			return nil, signer.WithHint(fmt.Errorf("%s: %w beside the key", keyRef, signer.ErrCertificateNotFound), "name the certificate with --certificate")
		}
		return nil, fmt.Errorf("%s: %w", certRef, signer.ErrCertificateNotFound)
	}
	leaf, others := signer.SelectLeaf(key.Public(), certs, time.Now())
	if f.intermediates != "" {
		more, err := a.readCertificates(ctx, signer.ParseReference(f.intermediates), f)
		if err != nil {
			return nil, err
		}
		others = append(others, more...)
	}
	return signer.New(key, leaf, others)
}

// likelyKey returns the public key of the first certificate that is no CA's:
// a hint to which key is meant where a reference leaves several.
func likelyKey(certs []*x509.Certificate) crypto.PublicKey {
	for _, c := range certs {
		if pub, err := signer.PublicKey(c); err == nil && !c.IsCA {
			return pub
		}
	}
	return nil
}

func (a *app) openKey(ctx context.Context, ref signer.Reference, hint crypto.PublicKey, f *identityFlags) (material, error) {
	m, err := backends()[ref.Scheme].key(ctx, a, ref, hint, f)
	return m, identityError(absent(ref, err, "check the path; a key is made with holdfast key create"))
}

func (a *app) readCertificates(ctx context.Context, ref signer.Reference, f *identityFlags) ([]*x509.Certificate, error) {
	certs, err := backends()[ref.Scheme].certificates(ctx, a, ref, f)
	return certs, identityError(absent(ref, err, "check the path; a certificate is asked for with holdfast csr"))
}

// absent adds the hint to err if the file that ref names is not there.
func absent(ref signer.Reference, err error, hint string) error {
	if err == nil || ref.Scheme != signer.SchemeFile || signer.Hint(err) != "" {
		return err
	}
	if _, statErr := os.Stat(ref.Value); !errors.Is(statErr, fs.ErrNotExist) {
		return err
	}
	return signer.WithHint(err, hint)
}

func closeKey(key crypto.Signer) {
	if c, ok := key.(interface{ Close() error }); ok {
		_ = c.Close() // the error that led here is the one to tell
	}
}

func (a *app) fileOptions(f *identityFlags) software.Options {
	o := software.Options{Passphrase: f.passphrase.Read, Warn: a.say.Warn}
	if f.pkcs8Password != "" {
		o.Passphrase = func(context.Context, string) (signer.Secret, error) {
			a.say.Warn("--pkcs8-password shows the passphrase to every user of this machine: use --passphrase file:PATH or another source")
			return signer.NewSecret([]byte(f.pkcs8Password)), nil
		}
	}
	return o
}

// setDebug sends debug messages to stderr, or nowhere.
func (a *app) setDebug(on bool) *slog.Logger {
	log := slog.New(slog.DiscardHandler)
	if on {
		log = slog.New(slog.NewTextHandler(a.say.W, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	slog.SetDefault(log)
	return log
}
