//go:build cgo

package cryptoki

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// Algorithms returns the names that [Module.GenerateKey] lists and documents.
func Algorithms() []string {
	return []string{"ec-p256", "ec-p384", "ec-p521", "rsa-2048", "rsa-3072", "rsa-4096"}
}

// parseAlgorithm returns the mechanism that makes a key pair and what the
// public half must say.
func parseAlgorithm(name string) (mech uint, public []*p11.Attribute, err error) {
	curve, bits := -1, 0
	switch strings.NewReplacer("-", "", "_", "", ":", "", " ", "").Replace(strings.ToLower(name)) {
	case "ecp256", "p256", "ecdsap256", "eccp256", "nistp256", "ecnistp256", "prime256v1", "secp256r1":
		curve = 0
	case "ecp384", "p384", "ecdsap384", "eccp384", "nistp384", "ecnistp384", "secp384r1":
		curve = 1
	case "ecp521", "p521", "ecdsap521", "eccp521", "nistp521", "ecnistp521", "secp521r1":
		curve = 2
	case "rsa2048":
		bits = 2048
	case "rsa3072":
		bits = 3072
	case "rsa4096":
		bits = 4096
	default:
		return 0, nil, fmt.Errorf("%w: %q is none of %s", signer.ErrUnsupportedKey, name, strings.Join(Algorithms(), ", "))
	}
	if curve < 0 {
		return p11.CKM_RSA_PKCS_KEY_PAIR_GEN, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_MODULUS_BITS, bits),
			p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		}, nil
	}
	oid, err := asn1.Marshal(curves[curve].oid)
	return p11.CKM_EC_KEY_PAIR_GEN, []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, oid)}, err
}

// GenerateKey makes a key pair on the one token that the URI fits: private,
// sensitive, not extractable, for signing alone. Label and id are the URI's
// object and id; an absent id is made up. Nothing is made, and the error wraps
// pkcs11.ErrExists, if the URI fits a key that is there. What the token made is
// read back and tried before it is returned; a key that the token would give
// away is destroyed.
func (m *Module) GenerateKey(ctx context.Context, uri *pkcs11.URI, algorithm string, o Options) (*Key, error) {
	mech, public, err := parseAlgorithm(algorithm)
	if err != nil {
		return nil, err
	}
	info, err := m.one(ctx, uri)
	if err != nil {
		return nil, err
	}
	label := uri.Value(pkcs11.AttrObject)
	id, _ := uri.ID()
	if len(id) == 0 {
		id = make([]byte, 16)
		_, _ = rand.Read(id) // never fails
	}
	t := m.lib.use(info)
	defer t.drop()
	var pub crypto.PublicKey
	err = t.write(ctx, credentials{uri, o}, func(s *session) (err error) {
		if err = t.refuseExisting(s, uri); err == nil {
			pub, err = t.generate(s, mech, public, label, id, o.AlwaysAuthenticate)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: generate %s: %w", uri, algorithm, err)
	}
	made := pkcs11.ObjectURI(info, label, id)
	for _, name := range []string{pkcs11.AttrPINSource, pkcs11.AttrPINValue} {
		if v, ok := uri.Get(name); ok {
			made = made.With(name, v)
		}
	}
	k, err := (&search{m: m, c: credentials{made, o}, uri: made, hint: pub}).in(ctx, info)
	if err != nil {
		return nil, fmt.Errorf("%s: it was generated, but %w", made, err)
	}
	return k, nil
}

// one returns the only token that the URI fits.
func (m *Module) one(ctx context.Context, uri *pkcs11.URI) (Token, error) {
	infos, err := m.matching(ctx, uri)
	if err != nil {
		return Token{}, err
	}
	if len(infos) > 1 {
		var uris []string
		for _, t := range infos {
			uris = append(uris, t.URI().String())
		}
		return Token{}, ambiguous(uri, "tokens", uris)
	}
	return infos[0], nil
}

// write runs f on a session of its own that may change the token, logged in.
func (t *token) write(ctx context.Context, c credentials, f func(s *session) error) error {
	if gen := t.generation(); t.loggedOut() {
		t.reset(gen)
	}
	if err := t.attach(ctx, c, true); err != nil {
		return err
	}
	t.mu.Lock()
	slot := t.slot
	t.mu.Unlock()
	h, err := t.lib.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return lasting(t.lib.note(failed("C_OpenSession", err)))
	}
	defer t.lib.ctx.CloseSession(h)
	err = t.lib.note(f(&session{handle: h}))
	if c := codeOf(err); c == p11.CKR_TOKEN_WRITE_PROTECTED || c == p11.CKR_SESSION_READ_ONLY {
		err = signer.WithHint(err, "the token is write-protected: store keys and certificates with its own tool")
	}
	return lasting(err)
}

func (t *token) refuseExisting(s *session, uri *pkcs11.URI) error {
	named := template(uri)
	if len(named) == 0 {
		return nil
	}
	for _, class := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY} {
		objects, err := t.lib.objects(s, class, named...)
		if err != nil {
			return err
		}
		if len(objects) > 0 {
			return signer.WithHint(fmt.Errorf("a key of that name %w: %s", pkcs11.ErrExists, objects[0]), "use it, or choose another object= or id=")
		}
	}
	return nil
}

// generate makes the pair and reads back what was made.
func (t *token) generate(s *session, mech uint, public []*p11.Attribute, label string, id []byte, always bool) (crypto.PublicKey, error) {
	is := p11.NewAttribute
	both := []*p11.Attribute{is(p11.CKA_TOKEN, true), idIs(id)}
	if label != "" {
		both = append(both, labelIs(label))
	}
	public = append(append(public, both...), is(p11.CKA_VERIFY, true))
	private := append(both[:len(both):len(both)], is(p11.CKA_PRIVATE, true), is(p11.CKA_SENSITIVE, true), is(p11.CKA_EXTRACTABLE, false), is(p11.CKA_SIGN, true))
	if always {
		private = append(private, is(p11.CKA_ALWAYS_AUTHENTICATE, true))
	}
	// Not every token lets these be said.
	publicToo := append(public[:len(public):len(public)], is(p11.CKA_PRIVATE, false), is(p11.CKA_ENCRYPT, false), is(p11.CKA_WRAP, false))
	privateToo := append(private[:len(private):len(private)], is(p11.CKA_DECRYPT, false), is(p11.CKA_UNWRAP, false), is(p11.CKA_SIGN_RECOVER, false), is(p11.CKA_DERIVE, false))

	mechs := []*p11.Mechanism{p11.NewMechanism(mech, nil)}
	pubHandle, privHandle, err := t.lib.ctx.GenerateKeyPair(s.handle, mechs, publicToo, privateToo)
	if err = failed("C_GenerateKeyPair", err); err != nil {
		switch codeOf(err) {
		case p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_TEMPLATE_INCONSISTENT:
			pubHandle, privHandle, err = t.lib.ctx.GenerateKeyPair(s.handle, mechs, public, private)
			err = failed("C_GenerateKeyPair", err)
		}
	}
	if codeOf(err) == p11.CKR_MECHANISM_INVALID || codeOf(err) == p11.CKR_DOMAIN_PARAMS_INVALID || codeOf(err) == p11.CKR_CURVE_NOT_SUPPORTED {
		return nil, signer.WithHint(fmt.Errorf("%w: the token makes no such keys: %w", signer.ErrUnsupportedKey, err), "choose another algorithm; `pkcs11-tool --list-mechanisms` shows what the token can do")
	}
	if err != nil {
		return nil, err
	}
	pub, err := t.inspect(s, pubHandle, privHandle)
	if err != nil {
		err = fmt.Errorf("%w; it was destroyed again", err)
		for _, h := range []p11.ObjectHandle{privHandle, pubHandle} {
			if e := t.lib.ctx.DestroyObject(s.handle, h); e != nil {
				err = fmt.Errorf("%w, or not: %w", err, failed("C_DestroyObject", e))
			}
		}
	}
	return pub, err
}

// inspect checks what a careful person would ask the token about a new key.
func (t *token) inspect(s *session, pubHandle, privHandle p11.ObjectHandle) (crypto.PublicKey, error) {
	private := newObject(privHandle)
	if err := t.lib.read(s, private, p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_NEVER_EXTRACTABLE, p11.CKA_LOCAL); err != nil {
		return nil, err
	}
	for _, must := range []struct {
		kind uint
		is   bool
		what string
	}{
		{p11.CKA_SENSITIVE, true, "is not sensitive"},
		{p11.CKA_EXTRACTABLE, false, "is extractable"},
		{p11.CKA_NEVER_EXTRACTABLE, true, "was extractable once"},
		{p11.CKA_LOCAL, true, "was not made on the token"},
	} {
		flag, err := t.lib.flag(s, private, must.kind)
		if err != nil {
			return nil, err
		}
		if flag != nil && *flag != must.is {
			return nil, fmt.Errorf("the token made a private key that %s", must.what)
		}
	}
	pub, _, err := t.lib.publicKey(s, newObject(pubHandle))
	if err == nil && pub == nil {
		err = errors.New("the token made a key whose public half it does not show")
	}
	return pub, err
}
