//go:build cgo

package cryptoki

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// ImportCertificate stores cert on the token that holds its private key, with
// the key's label and id, and returns it as the token then shows it. A
// certificate that is there already is left alone. If the key has another, or
// its id is another key's certificate's, the error wraps pkcs11.ErrExists,
// unless Options.Replace is set: then the key's other certificates are
// destroyed after the new one was stored.
func (m *Module) ImportCertificate(ctx context.Context, uri *pkcs11.URI, cert *x509.Certificate, o Options) (Certificate, error) {
	k, err := m.OpenKey(ctx, uri.Without(pkcs11.AttrType), cert, o)
	if err != nil {
		return Certificate{}, err
	}
	defer k.Close()
	var stored Certificate
	err = k.t.write(ctx, k.c, func(s *session) error {
		all, err := k.t.certificates(s)
		if err != nil {
			return err
		}
		var old []Certificate
		for _, c := range all {
			pub := public(c)
			own := pub != nil && same(pub, k.pub)
			switch {
			case bytes.Equal(c.DER, cert.Raw) && bytes.Equal(c.ID, k.id):
				stored = c
			case own && !o.Replace, !own && len(k.id) > 0 && bytes.Equal(c.ID, k.id):
				return signer.WithHint(fmt.Errorf("a certificate of this key %w: %s", pkcs11.ErrExists, c.URI()),
					"replace it expressly, or delete it by the token's own tool: pkcs11-tool --delete-object --type cert")
			case own:
				old = append(old, c)
			}
		}
		if stored.DER == nil {
			if stored, err = k.storeCertificate(s, cert); err != nil {
				return err
			}
		}
		return k.t.destroyCertificates(s, old)
	})
	if err != nil {
		return Certificate{}, k.explain("import certificate", err)
	}
	return stored, nil
}

func (k *Key) storeCertificate(s *session, cert *x509.Certificate) (Certificate, error) {
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return Certificate{}, err
	}
	is := p11.NewAttribute
	attrs := []*p11.Attribute{
		is(p11.CKA_CLASS, p11.CKO_CERTIFICATE), is(p11.CKA_CERTIFICATE_TYPE, p11.CKC_X_509),
		is(p11.CKA_TOKEN, true), is(p11.CKA_PRIVATE, false),
		is(p11.CKA_SUBJECT, cert.RawSubject), is(p11.CKA_ISSUER, cert.RawIssuer), is(p11.CKA_SERIAL_NUMBER, serial),
		is(p11.CKA_VALUE, cert.Raw), idIs(k.id), labelIs(k.label),
	}
	h, err := k.t.lib.ctx.CreateObject(s.handle, attrs)
	if err != nil {
		return Certificate{}, failed("C_CreateObject", err)
	}
	der, _, err := k.t.lib.attribute(s, h, p11.CKA_VALUE)
	if err == nil && !bytes.Equal(der, cert.Raw) {
		err = errors.New("the token stored another certificate than it was given")
	}
	return Certificate{DER: cert.Raw, X509: cert, Label: k.label, ID: k.id, Token: k.t.found}, err
}

func (t *token) destroyCertificates(s *session, certs []Certificate) error {
	for _, c := range certs {
		handles, err := t.lib.find(s, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_CERTIFICATE), p11.NewAttribute(p11.CKA_VALUE, c.DER), idIs(c.ID))
		if err != nil {
			return err
		}
		for _, h := range handles {
			if err := t.lib.ctx.DestroyObject(s.handle, h); err != nil {
				return fmt.Errorf("the new certificate is stored, but the old one stays: %w", failed("C_DestroyObject", err))
			}
		}
	}
	return nil
}
