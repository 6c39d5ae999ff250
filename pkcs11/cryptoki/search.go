//go:build cgo

package cryptoki

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// A search looks for one private key, in the manner of
// draft-woodhouse-cert-best-practice, section 8: the certificate first and
// without a PIN; then the key by the certificate's id and label, by its id, by
// its public key.
type search struct {
	m    *Module
	c    credentials
	uri  *pkcs11.URI
	hint crypto.PublicKey // of the key, if it is known

	identity bool // the certificates are wanted too
	// shortcut takes the first key of the right name if its trial signature
	// verifies, and looks no further. It is off once that went wrong.
	shortcut bool
	// all is what an identity's search read: every certificate on the token.
	// It is nil if there was no need to.
	all []Certificate
}

// OpenKey finds the private key that the URI names, itself or by its
// certificate, and has it make one signature to prove that it fits. (A key
// that wants the PIN at every signature proves itself with the first one that
// it is used for.) hint is what the key must fit, if the caller knows:
// an *x509.Certificate or a public key; else nil.
//
// Tokens are logged in to only if exactly one can be meant. Errors wrap
// signer.ErrTokenNotFound, signer.ErrKeyNotFound, signer.ErrKeyMismatch,
// signer.ErrAmbiguous with the URIs of what it fits, and the errors of PINs.
func (m *Module) OpenKey(ctx context.Context, uri *pkcs11.URI, hint crypto.PublicKey, o Options) (*Key, error) {
	k, _, err := m.open(ctx, uri, hint, o, false)
	return k, err
}

// OpenIdentity is OpenKey and [Key.Certificates] in one search. That the token
// has no certificate for the key is no error.
func (m *Module) OpenIdentity(ctx context.Context, uri *pkcs11.URI, hint crypto.PublicKey, o Options) (*Key, []Certificate, error) {
	k, all, err := m.open(ctx, uri, hint, o, true)
	if err != nil {
		return nil, nil, err
	}
	if all != nil {
		return k, forKey(all, k.pub), nil
	}
	certs, err := k.Certificates(ctx)
	if err != nil {
		_ = k.Close() // the error that led here is the one to tell
		return nil, nil, err
	}
	return k, certs, nil
}

func (m *Module) open(ctx context.Context, uri *pkcs11.URI, hint crypto.PublicKey, o Options, identity bool) (*Key, []Certificate, error) {
	if cert, ok := hint.(*x509.Certificate); ok {
		hint = nil
		if cert != nil {
			var err error
			if hint, err = signer.PublicKey(cert); err != nil {
				return nil, nil, err
			}
		}
	}
	if !wantsType(uri, pkcs11.TypeCertificate, pkcs11.TypePrivate, pkcs11.TypePublic) {
		return nil, nil, signer.WithHint(fmt.Errorf("%s: %w: the URI asks for another type", uri, signer.ErrKeyNotFound), "drop type= from the URI")
	}
	if hint != nil {
		if err := usable(hint); err != nil {
			return nil, nil, err
		}
	}
	q := &search{m: m, c: credentials{uri, o}, uri: uri, hint: hint, identity: identity}
	info, err := q.token(ctx)
	if err != nil {
		return nil, nil, err
	}
	k, err := q.in(ctx, info)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", uri, err)
	}
	return k, q.all, nil
}

// usable reports keys that no token's mechanisms here are for.
func usable(pub crypto.PublicKey) error {
	_, err := (&Key{pub: pub}).base(crypto.SHA256)
	return err
}

// token chooses the token: the one the URI fits, or of several the one that
// shows a certificate, or else a key, that it fits, or that alone may hide one.
func (q *search) token(ctx context.Context) (Token, error) {
	infos, err := q.m.matching(ctx, q.uri)
	if err != nil || len(infos) == 1 {
		return append(infos, Token{})[0], err
	}
	var withCert, withKey []Token
	var uris, certURIs, keyURIs []string
	for _, info := range infos {
		uris = append(uris, info.URI().String())
		certs, keys, err := q.glimpse(ctx, info)
		if ctx.Err() != nil {
			return Token{}, ctx.Err()
		}
		if err != nil {
			continue // it may not be the one
		}
		if len(certs) > 0 {
			withCert, certURIs = append(withCert, info), append(certURIs, certs[0].String())
		}
		if len(keys) > 0 {
			withKey, keyURIs = append(withKey, info), append(keyURIs, keys[0].String())
		}
	}
	switch {
	case len(withCert) == 1:
		return withCert[0], nil
	case len(withCert) > 1:
		uris = certURIs
	case len(withKey) == 1:
		return withKey[0], nil
	case len(withKey) > 1:
		uris = keyURIs
	default:
		if t, ok := onlyHiding(infos); ok {
			return t, nil
		}
	}
	return Token{}, ambiguous(q.uri, "tokens", uris)
}

// onlyHiding returns the token that wants a login, if it is the only one: the
// others have shown all they have.
func onlyHiding(infos []Token) (only Token, ok bool) {
	for _, t := range infos {
		if t.LoginRequired {
			if ok {
				return Token{}, false
			}
			only, ok = t, true
		}
	}
	return only, ok
}

func ambiguous(uri *pkcs11.URI, what string, uris []string) error {
	return signer.WithHint(fmt.Errorf("%s: %w: it fits %d %s: %s", uri, signer.ErrAmbiguous, len(uris), what, list(uris)),
		"use one of these URIs; "+listHint)
}

// glimpse returns the URIs of the certificates and keys that the search's URI
// fits and that the token shows to anyone.
func (q *search) glimpse(ctx context.Context, info Token) (certs, keys []*pkcs11.URI, err error) {
	t := q.m.lib.use(info)
	defer t.drop()
	err = t.retry(ctx, q.c, false, func(s *session) error {
		certs, keys = nil, nil
		found, err := q.certificates(t, s)
		if err != nil {
			return err
		}
		for _, c := range found {
			certs = append(certs, c.URI())
		}
		for _, class := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY} {
			objects, err := t.lib.objects(s, class, template(q.uri)...)
			if err != nil {
				return err
			}
			for _, o := range objects {
				if q.hint != nil {
					if fit, err := t.fits(s, o, q.hint); err != nil || fit != fitsYes {
						continue
					}
				}
				keys = append(keys, pkcs11.ObjectURI(info, o.label, o.id))
			}
		}
		return nil
	})
	return certs, keys, err
}

// certificates returns those that the URI names and the hint fits.
func (q *search) certificates(t *token, s *session) ([]Certificate, error) {
	if !wantsType(q.uri, pkcs11.TypeCertificate) {
		return nil, nil
	}
	named, err := t.certificates(s, template(q.uri)...)
	return q.fitting(named), err
}

// fitting returns the certificates that the hint fits.
func (q *search) fitting(certs []Certificate) []Certificate {
	var fit []Certificate
	for _, c := range certs {
		if pub := public(c); pub != nil && (q.hint == nil || same(pub, q.hint)) {
			fit = append(fit, c)
		}
	}
	return fit
}

// readAll is certificates, with all others of the token read on the way.
func (q *search) readAll(t *token, s *session) ([]Certificate, error) {
	all, err := t.certificates(s)
	if err != nil {
		return nil, err
	}
	q.all = append([]Certificate{}, all...)
	return q.fitting(slices.DeleteFunc(all, func(c Certificate) bool {
		return !q.uri.MatchesObject(pkcs11.TypeCertificate, c.Label, c.ID)
	})), nil
}

// in opens the key on a token: without a login if that is enough.
func (q *search) in(ctx context.Context, info Token) (k *Key, err error) {
	t := q.m.lib.use(info)
	defer func() {
		if k == nil {
			_ = t.drop()
		}
	}()
	t.raise(q.c.o)
	t.loadMechanisms()
	look := func(login bool) (k *Key, err error) {
		err = t.retry(ctx, q.c, login, func(s *session) error {
			q.all = nil
			if !login && info.LoginRequired {
				if there, err := t.lib.any(s, p11.CKO_PRIVATE_KEY); err != nil || !there {
					return cmp.Or(err, signer.ErrKeyNotFound)
				}
			}
			if k, err = q.locate(ctx, t, s); err != nil {
				return err
			}
			if k.always {
				k.login = info.LoginRequired
				k.unproven.Store(true)
				return nil
			}
			// Logged in already, by another key: some day this one will have to.
			k.login = info.LoginRequired && (login || t.userState(s.handle))
			if k.proven {
				return nil
			}
			return k.prove(ctx, s)
		})
		return k, err
	}
	try := func(login bool) (*Key, error) {
		q.shortcut = true
		k, err := look(login)
		if errors.As(err, new(notTaken)) {
			q.shortcut = false
			k, err = look(login)
		}
		return k, err
	}
	k, err = try(false)
	switch {
	case err == nil && !(k.always && k.login):
		return k, nil
	case !info.LoginRequired:
		return nil, err
	case err != nil && !errors.Is(err, signer.ErrKeyNotFound) && !errors.Is(err, signer.ErrCertificateNotFound) && classify(err) != failLogin:
		return nil, err
	}
	if k, err = try(true); err != nil {
		return nil, err
	}
	return k, nil
}

// prove has the key sign something and checks that.
func (k *Key) prove(ctx context.Context, s *session) error {
	message := []byte("holdfast proves a key " + rand.Text())
	r, err := k.forMessage(message, crypto.SHA256)
	if errors.Is(err, errors.ErrUnsupported) {
		if _, ok := k.pub.(*rsa.PublicKey); ok { // a key for PSS alone
			r, err = k.forMessage(message, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
		}
	}
	if err != nil {
		return err
	}
	h, err := k.find(ctx, s)
	if err != nil {
		return err
	}
	sig, err := k.signOn(ctx, s, h, r)
	if err != nil {
		return fmt.Errorf("trial signature: %w", err)
	}
	if err := r.verify(k.pub, sig); err != nil {
		return signer.WithHint(fmt.Errorf("%w: key %q (id %x) on %s: its trial signature does not verify", signer.ErrKeyMismatch, k.label, k.id, k.t.found),
			"name the key that the certificate was issued for; "+listHint)
	}
	return nil
}

// loadMechanisms asks the token once what it can do.
func (t *token) loadMechanisms() {
	list, err := t.lib.ctx.GetMechanismList(uint(t.found.SlotID))
	if err != nil || len(list) == 0 {
		return // it does not tell
	}
	mechs := mechanisms{}
	for _, m := range list {
		mechs[m.Mechanism] = true
	}
	t.mechs.Store(&mechs)
}
