package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// An Algorithm is a kind of key. Its value is its name for people.
type Algorithm string

// Algorithms of keys. Few chips have P-521 or more than RSA-2048.
const (
	P256    Algorithm = "EC P-256"
	P384    Algorithm = "EC P-384"
	P521    Algorithm = "EC P-521"
	RSA2048 Algorithm = "RSA-2048"
	RSA3072 Algorithm = "RSA-3072"
	RSA4096 Algorithm = "RSA-4096"
)

// MinAuth is the least length of an authorization value for a key without
// protection against dictionary attacks: random bytes, not a word.
const MinAuth = 16

// CreateOptions say what key to make. The zero value makes an EC P-256 key
// below the owner's ECC storage key that needs no password.
type CreateOptions struct {
	Algorithm Algorithm // empty means P256

	// Auth is the key's authorization value, at most 32 bytes. It may be empty.
	Auth signer.Secret

	// DA puts the key under the TPM's protection against dictionary attacks,
	// which is for values that a person can remember: wrong ones lock out all
	// such keys of the TPM for a while. Without it Auth must be empty or have
	// MinAuth bytes.
	DA bool

	// PolicyDigest binds the key to a policy, in SHA-256. The value of Auth
	// then counts only as far as the policy wants it. Policy and AuthPolicy are
	// what is stored in the key file, see [KeyFile].
	PolicyDigest       []byte
	Policy, AuthPolicy []byte

	// Parent is a hierarchy or a persistent storage key; 0 means the owner
	// hierarchy. RSAParent takes a hierarchy's RSA storage key in place of its
	// ECC one.
	Parent    tpm2.TPMHandle
	RSAParent bool

	// Persistent, if not 0, is the handle at which the key is made persistent
	// in the owner hierarchy. A handle that is taken is an error that wraps
	// [ErrHandleInUse].
	Persistent tpm2.TPMHandle

	// ParentAuth and OwnerAuth are as in [Options].
	ParentAuth, OwnerAuth AuthFunc
}

// ErrHandleInUse: the persistent handle has a key already.
var ErrHandleInUse = errors.New("the handle is in use")

// CreateKey makes a signing key in the TPM, which it cannot leave. The key file
// is the only way to use it, unless it was made persistent.
func CreateKey(ctx context.Context, d *Device, opts CreateOptions) (*KeyFile, error) {
	template, err := opts.template()
	if err != nil {
		return nil, fmt.Errorf("making a TPM key: %w", err)
	}
	var f *KeyFile
	err = d.do(ctx, func(o *op) error {
		if opts.Persistent != 0 {
			if err := o.free(opts.Persistent); err != nil {
				return err
			}
		}
		if f, err = o.create(opts, template); err != nil || opts.Persistent == 0 {
			return err
		}
		return o.persist(opts, f)
	})
	if err != nil {
		return nil, d.explain(fmt.Errorf("making a TPM key: %w", err))
	}
	return f, nil
}

func (c CreateOptions) template() (t tpm2.TPMTPublic, err error) {
	auth := trimAuth(c.Auth.Reveal())
	switch {
	case len(auth) > 32:
		return t, signer.WithHint(fmt.Errorf("a password of %d bytes: the TPM takes 32", len(auth)), "choose a shorter one")
	case len(auth) > 0 && len(auth) < MinAuth && !c.DA:
		return t, signer.WithHint(fmt.Errorf("a password of %d bytes without protection against guessing", len(auth)),
			"turn on dictionary attack protection for a PIN, or take 16 random bytes or more")
	case len(c.PolicyDigest) != 0 && len(c.PolicyDigest) != 32:
		return t, errors.New("the policy's digest is not one of SHA-256")
	case len(c.PolicyDigest) == 0 && len(c.Policy) != 0:
		return t, errors.New("a policy without its digest")
	case c.Persistent != 0 && !isPersistent(c.Persistent):
		return t, fmt.Errorf("handle %#x is not that of a persistent key", uint32(c.Persistent))
	case c.Persistent > lastOwned:
		return t, signer.WithHint(fmt.Errorf("handle %#x is the platform's", uint32(c.Persistent)), "the owner's go from 0x81000000 to 0x817fffff")
	}
	t = tpm2.TPMTPublic{
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, SignEncrypt: true,
			UserWithAuth: len(c.PolicyDigest) == 0, NoDA: !c.DA,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: c.PolicyDigest},
	}
	ec := func(curve tpm2.TPMECCCurve) {
		t.Type = tpm2.TPMAlgECC
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	}
	rsa := func(bits tpm2.TPMKeyBits) {
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: bits})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	}
	switch c.Algorithm {
	case "", P256:
		ec(tpm2.TPMECCNistP256)
	case P384:
		ec(tpm2.TPMECCNistP384)
	case P521:
		ec(tpm2.TPMECCNistP521)
	case RSA2048:
		rsa(2048)
	case RSA3072:
		rsa(3072)
	case RSA4096:
		rsa(4096)
	default:
		return t, unsupported("%q", c.Algorithm)
	}
	return t, nil
}

// lastOwned is the last persistent handle that the owner may use (TPM 2.0 part
// 2, 7.4).
const lastOwned tpm2.TPMHandle = 0x817fffff

// free returns an error if the persistent handle is taken.
func (o *op) free(h tpm2.TPMHandle) error {
	_, _, err := o.public(h)
	switch rc := codeOf(err); {
	case err == nil:
		return o.inUse(h)
	case rc == tpm2.TPMRCHandle, rc == tpm2.TPMRCValue:
		return nil
	}
	return err
}

// inUse names a handle that is free, and what removes the key that is at h.
func (o *op) inUse(h tpm2.TPMHandle) error {
	hint := fmt.Sprintf("or remove what is there, which cannot be undone: tpm2_evictcontrol -C o -c %#x", uint32(h))
	if other, err := o.freeAfter(h); err == nil {
		hint = fmt.Sprintf("handle:%#x is free; ", uint32(other)) + hint
	} else {
		hint = "choose another handle, " + hint
	}
	return signer.WithHint(fmt.Errorf("handle %#x: %w", uint32(h), ErrHandleInUse), hint)
}

// freeAfter returns the first handle above h that is free.
func (o *op) freeAfter(h tpm2.TPMHandle) (tpm2.TPMHandle, error) {
	for h++; h <= lastOwned; {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(h), PropertyCount: 64}.Execute(o)
		if err != nil {
			return 0, err
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return 0, err
		}
		for _, taken := range list.Handle {
			if taken != h {
				return h, nil
			}
			h++
		}
		if !rsp.MoreData {
			break
		}
	}
	if h > lastOwned {
		return 0, errors.New("none is free")
	}
	return h, nil
}

// create makes the key. It borrows, for that, the loading part of a Key.
func (o *op) create(opts CreateOptions, template tpm2.TPMTPublic) (*KeyFile, error) {
	parent := opts.Parent
	if parent == 0 {
		parent = tpm2.TPMRHOwner
	}
	empty := len(trimAuth(opts.Auth.Reveal())) == 0
	f := &KeyFile{EmptyAuth: &empty, Policy: opts.Policy, AuthPolicy: opts.AuthPolicy, RSAParent: opts.RSAParent, Parent: parent}
	k := &Key{d: o.d, name: "the new key", file: f, opts: Options{ParentAuth: opts.ParentAuth, OwnerAuth: opts.OwnerAuth}}
	var ob *object
	var err error
	if isPersistent(parent) {
		ob, err = o.persistent(parent)
		if err == nil && !ob.isStorage() {
			err = fmt.Errorf("parent %#x: %w", uint32(parent), unsupported("not a storage key"))
		}
	} else {
		ob, err = k.primary(o, parentTemplates(opts.RSAParent)[0])
	}
	if err != nil {
		return nil, err
	}
	if err := k.createBelow(o, ob, opts.Auth, template); err != nil {
		return nil, err
	}
	if isTransient(ob.handle) {
		return f, o.flush(ob.handle)
	}
	return f, nil
}

func (k *Key) createBelow(o *op, parent *object, secret signer.Secret, template tpm2.TPMTPublic) error {
	c := k.ofParent(parent)
	auth, err := o.authorize(c, parent, true, false)
	if err != nil {
		return err
	}
	if !secret.Empty() {
		// An empty password of the parent needs no session; the new one's does.
		s, err := o.hmacSession(parent)
		if err != nil {
			return err
		}
		auth = s.with(c.secret, true, false)
	}
	rsp, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: auth},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: trimAuth(secret.Reveal())},
		}},
		InPublic: tpm2.New2B(template),
	}.Execute(o)
	if err = o.judge(c, err); err != nil {
		switch codeOf(err) {
		case tpm2.TPMRCCurve, tpm2.TPMRCValue, tpm2.TPMRCKeySize, tpm2.TPMRCHash:
			return signer.WithHint(fmt.Errorf("%w: the TPM does not make such keys: %w", signer.ErrUnsupportedKey, err), "take EC P-256 or RSA-2048, which every TPM 2.0 has")
		}
		return err
	}
	area := rsp.OutPublic.Bytes()
	public, err := parsePublic(area)
	if err != nil {
		return fmt.Errorf("the key it made: %w", err)
	}
	k.file.Public, k.file.name.Buffer, k.file.Private = *public, nameOf(area), rsp.OutPrivate.Buffer
	k.public = *public
	return k.file.check()
}

// persist loads the new key and makes it persistent.
func (o *op) persist(opts CreateOptions, f *KeyFile) error {
	k := &Key{d: o.d, name: "the new key", file: f, public: f.Public, cred: &credential{},
		opts: Options{ParentAuth: opts.ParentAuth, OwnerAuth: opts.OwnerAuth}, tryEmpty: true}
	h, err := k.load(o)
	if err != nil {
		return err
	}
	c := ofHierarchy(tpm2.TPMRHOwner, opts.OwnerAuth, o.d.hints.Owner)
	auth, err := o.authorize(c, nil, false, false)
	if err != nil {
		return err
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: auth},
		ObjectHandle:     tpm2.NamedHandle{Handle: h, Name: f.name},
		PersistentHandle: opts.Persistent,
	}.Execute(o)
	switch err = o.judge(c, err); {
	case codeOf(err) == tpm2.TPMRCNVDefined:
		return o.inUse(opts.Persistent)
	case err != nil:
		return o.d.wrapf(err, "making it persistent at %#x", uint32(opts.Persistent))
	}
	return o.flush(h)
}
