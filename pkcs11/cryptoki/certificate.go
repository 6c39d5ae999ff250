//go:build cgo

package cryptoki

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// certificates reads the certificates on a token that match the attributes.
func (t *token) certificates(s *session, more ...*p11.Attribute) ([]Certificate, error) {
	objects, err := t.lib.objects(s, p11.CKO_CERTIFICATE, more...)
	if err != nil {
		return nil, err
	}
	var certs []Certificate
	for _, o := range objects {
		if kind, ok, err := t.lib.number(s, o, p11.CKA_CERTIFICATE_TYPE); err != nil {
			return nil, err
		} else if ok && kind != p11.CKC_X_509 {
			continue
		}
		der := o.known[p11.CKA_VALUE]
		if len(der) == 0 {
			continue // it is elsewhere: CKA_URL
		}
		c := Certificate{DER: der, Label: o.label, ID: o.id, Token: t.found}
		c.X509, _ = x509.ParseCertificate(der)
		certs = append(certs, c)
	}
	return certs, nil
}

// template returns the attributes of objects that the URI names.
func template(uri *pkcs11.URI) []*p11.Attribute {
	var attrs []*p11.Attribute
	if id, ok := uri.ID(); ok {
		attrs = append(attrs, idIs(id))
	}
	if label, ok := uri.Get(pkcs11.AttrObject); ok {
		attrs = append(attrs, labelIs(label))
	}
	return attrs
}

func wantsType(uri *pkcs11.URI, types ...string) bool {
	v, ok := uri.Get(pkcs11.AttrType)
	return !ok || slices.Contains(types, v)
}

// public is signer.PublicKey for a certificate that may not have parsed.
func public(c Certificate) crypto.PublicKey {
	if c.X509 == nil {
		return nil
	}
	pub, err := signer.PublicKey(c.X509)
	if err != nil {
		return nil
	}
	return pub
}

// Certificates returns every certificate that the URI names, on whatever
// tokens it fits, and after them the chains above them, as far as they lie on
// the same token (marked Issuer). It looks without a PIN first, and logs in
// only if it found nothing and one token alone may hide what the URI names. Nothing found
// is an error that wraps signer.ErrCertificateNotFound.
func (m *Module) Certificates(ctx context.Context, uri *pkcs11.URI, o Options) ([]Certificate, error) {
	if !wantsType(uri, pkcs11.TypeCertificate) {
		return nil, signer.WithHint(fmt.Errorf("%s: %w: the URI asks for another type", uri, signer.ErrCertificateNotFound), "drop type= from the URI, or write type=cert")
	}
	infos, err := m.matching(ctx, uri)
	if err != nil {
		return nil, err
	}
	c := credentials{uri, o}
	var found []Certificate
	var there []string
	look := func(info Token, login bool) error {
		t := m.lib.use(info)
		defer t.drop()
		return t.retry(ctx, c, login, func(s *session) error {
			all, err := t.certificates(s)
			if err != nil {
				return err
			}
			found = append(found, withChains(all, uri)...)
			for _, c := range all {
				if u := c.URI().String(); !slices.Contains(there, u) {
					there = append(there, u)
				}
			}
			return nil
		})
	}
	var failed error
	for _, info := range infos {
		if err := look(info, false); err != nil && failed == nil {
			failed = err // of a token that may not be the one
		}
	}
	if failed != nil && (len(found) == 0 || ctx.Err() != nil) {
		return nil, failed
	}
	if only, ok := onlyHiding(infos); ok && len(found) == 0 && (c.given() || only.ProtectedAuthenticationPath) {
		if err := look(only, true); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, signer.WithHint(fmt.Errorf("%s: %w; there is: %s", uri, signer.ErrCertificateNotFound, list(there)), listHint)
	}
	return found, nil
}

// withChains picks from a token's certificates those the URI names, and after
// them their chains.
func withChains(all []Certificate, uri *pkcs11.URI) []Certificate {
	var named, chain []Certificate
	var pool []*x509.Certificate
	for _, c := range all {
		if c.X509 != nil {
			pool = append(pool, c.X509)
		}
		if uri.MatchesObject(pkcs11.TypeCertificate, c.Label, c.ID) {
			named = append(named, c)
		}
	}
	has := func(in []Certificate, x *x509.Certificate) bool {
		return slices.ContainsFunc(in, func(c Certificate) bool { return c.X509 == x })
	}
	for _, n := range named {
		if n.X509 == nil {
			continue
		}
		for _, x := range signer.OrderChain(n.X509, pool) {
			if has(named, x) || has(chain, x) {
				continue
			}
			for _, c := range all {
				if c.X509 == x {
					c.Issuer = true
					chain = append(chain, c)
				}
			}
		}
	}
	return append(named, chain...)
}

// forKey puts the certificates issued for a key first, the one to use now at
// their head, and the chain above it after them.
func forKey(all []Certificate, pub crypto.PublicKey) []Certificate {
	var own []Certificate
	for _, c := range all {
		if p := public(c); p != nil && same(p, pub) {
			own = append(own, c)
		}
	}
	now := time.Now()
	valid := func(c Certificate) bool { return !now.Before(c.X509.NotBefore) && !now.After(c.X509.NotAfter) }
	slices.SortStableFunc(own, func(a, b Certificate) int {
		if valid(a) != valid(b) {
			if valid(a) {
				return -1
			}
			return 1
		}
		return b.X509.NotAfter.Compare(a.X509.NotAfter)
	})
	var pool []*x509.Certificate
	for _, c := range all {
		if c.X509 != nil {
			pool = append(pool, c.X509)
		}
	}
	chain := own
	if len(own) > 0 {
		for _, x := range signer.OrderChain(own[0].X509, pool) {
			i := slices.IndexFunc(all, func(c Certificate) bool { return c.X509 == x })
			c := all[i]
			c.Issuer = true
			chain = append(chain, c)
		}
	}
	return chain
}
