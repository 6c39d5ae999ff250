//go:build cgo

package cryptoki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// emptyName: an attribute that is empty differs from none to a token, but not
// once it is read.
func emptyName(uri *pkcs11.URI) bool {
	return slices.ContainsFunc(template(uri), func(a *p11.Attribute) bool { return len(a.Value) == 0 })
}

// fit is what a private key's attributes say about a public key.
type fit int

const (
	fitsNot   fit = iota
	fitsMaybe     // they do not say
	fitsYes
)

func (t *token) fits(s *session, o object, pub crypto.PublicKey) (fit, error) {
	own, _, err := t.lib.publicKey(s, o)
	if err == nil && own == nil {
		own, err = t.lib.publicKeyBeside(s, o)
	}
	switch {
	case err != nil:
		return fitsNot, err
	case own == nil:
		return fitsMaybe, nil
	case same(own, pub):
		return fitsYes, nil
	}
	return fitsNot, nil
}

// locate finds the one private key that is meant among those the session sees.
func (q *search) locate(ctx context.Context, t *token, s *session) (*Key, error) {
	read := q.certificates
	if q.identity && wantsType(q.uri, pkcs11.TypeCertificate) && !emptyName(q.uri) {
		read = q.readAll
	}
	certs, err := read(t, s)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 && q.uri.Value(pkcs11.AttrType) == pkcs11.TypeCertificate {
		all, err := t.certificates(s)
		if err != nil {
			return nil, err
		}
		var there []string
		for _, c := range all {
			there = append(there, c.URI().String())
		}
		return nil, signer.WithHint(fmt.Errorf("%w on %s; there is: %s", signer.ErrCertificateNotFound, t.found, list(there)), listHint)
	}
	wanted, err := q.wanted(t, s, certs)
	if err != nil {
		return nil, err
	}
	if len(wanted) == 0 {
		return q.byName(t, s)
	}
	q.shortcut = q.shortcut && len(wanted) == 1
	var keys []*Key
	for _, pub := range wanted {
		k, err := q.byPublicKey(ctx, t, s, pub, certs)
		if err != nil {
			return nil, err
		}
		if k != nil {
			keys = append(keys, k)
		}
	}
	switch len(keys) {
	case 0:
		return nil, q.notFound(t, s, len(certs) > 0)
	case 1:
		return keys[0], nil
	}
	var uris []string
	for _, k := range keys {
		uris = append(uris, k.URI().String())
	}
	return nil, ambiguous(q.uri, "keys", uris)
}

// wanted returns the public keys to find the private ones of: the hint, else
// those of the certificates named, else those of the public key objects named
// where no private key has that name.
func (q *search) wanted(t *token, s *session, certs []Certificate) ([]crypto.PublicKey, error) {
	if q.hint != nil {
		return []crypto.PublicKey{q.hint}, nil
	}
	var wanted []crypto.PublicKey
	add := func(pub crypto.PublicKey) {
		for _, w := range wanted {
			if same(w, pub) {
				return
			}
		}
		wanted = append(wanted, pub)
	}
	for _, c := range certs {
		add(public(c))
	}
	if len(certs) > 0 || len(template(q.uri)) == 0 {
		return wanted, nil
	}
	private, err := t.lib.find(s, append(template(q.uri), p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY))...)
	if err != nil || len(private) > 0 {
		return nil, err
	}
	objects, err := t.lib.objects(s, p11.CKO_PUBLIC_KEY, template(q.uri)...)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		pub, _, err := t.lib.publicKey(s, o)
		if err != nil {
			return nil, err
		}
		if pub != nil {
			add(pub)
		}
	}
	return wanted, nil
}

// byPublicKey finds the private key of pub, or nil. If none says that it fits,
// those that do not say are tried.
func (q *search) byPublicKey(ctx context.Context, t *token, s *session, pub crypto.PublicKey, certs []Certificate) (*Key, error) {
	var stages [][]*p11.Attribute
	for _, c := range certs {
		if len(c.ID) == 0 || !same(public(c), pub) {
			continue
		}
		if c.Label != "" {
			stages = append(stages, []*p11.Attribute{idIs(c.ID), labelIs(c.Label)})
		}
		stages = append(stages, []*p11.Attribute{idIs(c.ID)})
	}
	named := template(q.uri)
	if len(named) > 0 {
		stages = append(stages, named)
	}
	if len(certs) > 0 || len(named) == 0 || q.hint == nil {
		stages = append(stages, nil) // every key: none was named
	}
	var maybe []object
	seen := map[p11.ObjectHandle]bool{}
	for _, attrs := range stages {
		objects, err := t.lib.objects(s, p11.CKO_PRIVATE_KEY, attrs...)
		if err != nil {
			return nil, err
		}
		if q.shortcut && len(objects) == 1 && len(attrs) > 0 {
			k, err := q.take(ctx, t, s, objects[0], pub)
			if k != nil || err != nil {
				return k, err
			}
		}
		for _, o := range objects {
			if seen[o.handle] {
				continue
			}
			seen[o.handle] = true
			fit, err := t.fits(s, o, pub)
			if err != nil {
				return nil, err
			}
			switch fit {
			case fitsYes:
				return q.key(t, s, o, pub)
			case fitsMaybe:
				maybe = append(maybe, o)
			}
		}
	}
	return q.byTrial(ctx, t, s, pub, maybe)
}

// notTaken is why the shortcut did not do.
type notTaken struct{ error }

// take returns the key of an object if its trial signature verifies, which
// spares to ask whether it fits. It returns nil where that is no help.
func (q *search) take(ctx context.Context, t *token, s *session, o object, pub crypto.PublicKey) (*Key, error) {
	k, err := q.key(t, s, o, pub)
	if err != nil || k.always {
		return nil, err
	}
	if kind, ok, err := t.lib.number(s, o, p11.CKA_KEY_TYPE); err != nil || ok && kind != keyType(pub) {
		return nil, err
	}
	if err := k.prove(ctx, s); classify(err) != failPlain {
		return nil, err
	} else if err != nil {
		return nil, notTaken{err}
	}
	k.proven = true
	return k, nil
}

func keyType(pub crypto.PublicKey) uint {
	if _, ok := pub.(*ecdsa.PublicKey); ok {
		return p11.CKK_EC
	}
	return p11.CKK_RSA
}

// byTrial returns the first of the keys whose signature verifies with pub, or
// the only one, untried. A key that wants the PIN for a trial is not tried.
func (q *search) byTrial(ctx context.Context, t *token, s *session, pub crypto.PublicKey, maybe []object) (*Key, error) {
	for _, o := range maybe {
		k, err := q.key(t, s, o, pub)
		if err != nil || len(maybe) == 1 {
			return k, err
		}
		if k.always {
			continue
		}
		err = k.prove(ctx, s)
		if err == nil {
			k.proven = true
			return k, nil
		}
		if c := classify(err); c != failPlain {
			return nil, err
		}
	}
	return nil, nil
}

// byName finds the one private key that the URI names, where nothing tells its
// public key but the token.
func (q *search) byName(t *token, s *session) (*Key, error) {
	objects, err := t.lib.objects(s, p11.CKO_PRIVATE_KEY, template(q.uri)...)
	if err != nil {
		return nil, err
	}
	switch len(objects) {
	case 0:
		return nil, q.notFound(t, s, false)
	case 1:
	default:
		var uris []string
		for _, o := range objects {
			uris = append(uris, pkcs11.ObjectURI(t.found, o.label, o.id).String())
		}
		return nil, ambiguous(q.uri, "keys", uris)
	}
	o := objects[0]
	pub, algorithm, err := t.lib.publicKey(s, o)
	if err == nil && pub == nil {
		pub, err = t.lib.publicKeyBeside(s, o)
	}
	if err == nil && pub == nil && len(o.id) > 0 {
		var certs []Certificate
		if certs, err = t.certificates(s, idIs(o.id)); len(certs) > 0 {
			pub = public(certs[0])
		}
	}
	if err != nil {
		return nil, err
	}
	if pub == nil {
		return nil, signer.WithHint(fmt.Errorf("%w: the token shows no public key for %s %s", signer.ErrUnsupportedKey, algorithm, o),
			"give the key's certificate too, or store it on the token under the same id")
	}
	return q.key(t, s, o, pub)
}

func (q *search) key(t *token, s *session, o object, pub crypto.PublicKey) (*Key, error) {
	if err := usable(pub); err != nil {
		return nil, err
	}
	k := &Key{t: t, c: q.c, pub: pub, label: o.label, id: o.id}
	var err error
	if k.info, err = t.keyFlags(s, o); err != nil {
		return nil, err
	}
	k.always = k.info.AlwaysAuthenticate
	k.info.Public, k.info.Algorithm = pub, signer.DescribeKey(pub)
	k.handle.Store(&handle{s.gen, o.handle})
	return k, nil
}

// keyInfo describes a private key, all but its certificate.
func (t *token) keyInfo(s *session, o object) (KeyInfo, error) {
	info, err := t.keyFlags(s, o)
	if err != nil {
		return info, err
	}
	if info.Public, info.Algorithm, err = t.lib.publicKey(s, o); err == nil && info.Public == nil {
		if info.Public, err = t.lib.publicKeyBeside(s, o); info.Public != nil {
			info.Algorithm = signer.DescribeKey(info.Public)
		}
	}
	return info, err
}

// keyFlags is keyInfo without the public half.
func (t *token) keyFlags(s *session, o object) (KeyInfo, error) {
	info := KeyInfo{Label: o.label, ID: o.id, Token: t.found, Certificate: -1}
	always, err := t.lib.flag(s, o, p11.CKA_ALWAYS_AUTHENTICATE)
	if err != nil {
		return info, err
	}
	info.AlwaysAuthenticate = always != nil && *always
	if info.Extractable, err = t.lib.flag(s, o, p11.CKA_EXTRACTABLE); err != nil {
		return info, err
	}
	info.CanSign, err = t.lib.flag(s, o, p11.CKA_SIGN)
	return info, err
}

// notFound says what was looked for and what there is.
func (q *search) notFound(t *token, s *session, haveCert bool) error {
	objects, err := t.lib.objects(s, p11.CKO_PRIVATE_KEY)
	if err != nil {
		return err
	}
	var there []string
	named := false
	for _, o := range objects {
		there = append(there, pkcs11.ObjectURI(t.found, o.label, o.id).WithoutQuery().String())
		named = named || len(template(q.uri)) > 0 && q.uri.Without(pkcs11.AttrType).MatchesObject(pkcs11.TypePrivate, o.label, o.id)
	}
	if q.hint != nil && named {
		return signer.WithHint(fmt.Errorf("%w on %s: the key that the URI names is another one", signer.ErrKeyMismatch, t.found),
			"name the key that the certificate was issued for; "+listHint)
	}
	what := ""
	if haveCert || q.hint != nil {
		what = " for the certificate"
	}
	return signer.WithHint(fmt.Errorf("%w%s on %s; there is: %s", signer.ErrKeyNotFound, what, t.found, list(there)), listHint)
}
