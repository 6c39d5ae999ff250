//go:build cgo

package cryptoki

import (
	"context"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
)

// List returns what lies on the tokens that the URI fits (nil: on all). It
// logs in only if one of them wants that and there is a PIN for it; what is hidden
// without a login is left out else, and Contents.LoggedIn is false. A token
// that cannot be read is in the list with the reason in Contents.Err.
func (m *Module) List(ctx context.Context, uri *pkcs11.URI, o Options) ([]Contents, error) {
	if uri == nil {
		uri = &pkcs11.URI{}
	}
	infos, skipped, err := m.lib.enumerate(ctx)
	if err != nil {
		return nil, err
	}
	infos = slices.DeleteFunc(infos, func(t Token) bool { return !uri.MatchesToken(m.lib.info, t) })
	c := credentials{uri, o}
	only, one := onlyHiding(infos)
	var all []Contents
	for _, info := range infos {
		login := one && info == only && c.given()
		contents := m.contents(ctx, info, c, login)
		if contents.Err != nil && login { // show what anyone may see
			reason := contents.Err
			contents = m.contents(ctx, info, c, false)
			contents.Err = reason
		}
		keepNamed(&contents, uri)
		pair(&contents)
		all = append(all, contents)
	}
	for _, err := range skipped {
		all = append(all, Contents{Err: err})
	}
	return all, ctx.Err()
}

func (m *Module) contents(ctx context.Context, info Token, c credentials, login bool) Contents {
	t := m.lib.use(info)
	defer t.drop()
	var found Contents
	err := t.retry(ctx, c, login, func(s *session) (err error) {
		found = Contents{Token: info, LoggedIn: !info.LoginRequired || t.userState(s.handle)}
		if found.Certificates, err = t.certificates(s); err != nil {
			return err
		}
		found.Keys, err = t.keys(s)
		return err
	})
	found.Token, found.Err = info, err
	return found
}

// keys describes the private keys that the session sees, and the public ones
// that have none.
func (t *token) keys(s *session) ([]KeyInfo, error) {
	var keys []KeyInfo
	private, err := t.lib.objects(s, p11.CKO_PRIVATE_KEY)
	if err != nil {
		return nil, err
	}
	for _, o := range private {
		k, err := t.keyInfo(s, o)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	public, err := t.lib.objects(s, p11.CKO_PUBLIC_KEY)
	if err != nil {
		return nil, err
	}
	for _, o := range public {
		pub, algorithm, err := t.lib.publicKey(s, o)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(keys, func(k KeyInfo) bool {
			return k.Public != nil && pub != nil && same(k.Public, pub) || pub == nil && string(k.ID) == string(o.id)
		}) {
			keys = append(keys, KeyInfo{Label: o.label, ID: o.id, Token: t.found, Algorithm: algorithm, Public: pub, PublicOnly: true, Certificate: -1})
		}
	}
	return keys, nil
}

// pair finds each key's certificate: of several the one that ends last.
func pair(c *Contents) {
	for i := range c.Keys {
		k := &c.Keys[i]
		for j, cert := range c.Certificates {
			if pub := public(cert); pub == nil || k.Public == nil || !same(pub, k.Public) {
				continue
			}
			if k.Certificate < 0 || cert.X509.NotAfter.After(c.Certificates[k.Certificate].X509.NotAfter) {
				k.Certificate = j
			}
		}
	}
}

// keepNamed drops the objects that the URI does not fit.
func keepNamed(c *Contents, uri *pkcs11.URI) {
	c.Keys = slices.DeleteFunc(c.Keys, func(k KeyInfo) bool {
		return !uri.MatchesObject(pkcs11.TypePrivate, k.Label, k.ID) && !uri.MatchesObject(pkcs11.TypePublic, k.Label, k.ID)
	})
	c.Certificates = slices.DeleteFunc(c.Certificates, func(x Certificate) bool {
		return !uri.MatchesObject(pkcs11.TypeCertificate, x.Label, x.ID)
	})
}
