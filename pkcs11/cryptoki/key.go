//go:build cgo

package cryptoki

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// A Key is a private key on a token. It implements crypto.Signer,
// crypto.MessageSigner and io.Closer, and is safe for concurrent use.
//
// It outlives its sessions: when a session, a login or the token goes and
// comes back, the next signature opens another, logs in and finds the key
// again, once.
type Key struct {
	t      *token
	c      credentials
	pub    crypto.PublicKey
	label  string
	id     []byte
	login  bool // the key wants a logged-in session
	always bool // CKA_ALWAYS_AUTHENTICATE
	info   KeyInfo

	handle   atomic.Pointer[handle]
	proven   bool        // it fits pub, as a trial signature has shown
	unproven atomic.Bool // the first signature is checked
	life     sync.RWMutex
	closed   bool // guarded by life, which users of the key hold for reading
}

// A handle is valid for one generation of its token.
type handle struct {
	gen uint64
	h   p11.ObjectHandle
}

var (
	_ crypto.MessageSigner = (*Key)(nil)
	_ io.Closer            = (*Key)(nil)
)

// Public returns the public key: that of the certificate or hint which led to
// the key, or what the token tells.
func (k *Key) Public() crypto.PublicKey { return k.pub }

// URI returns the URI of the key, without a PIN or where to find one.
func (k *Key) URI() *pkcs11.URI { return pkcs11.ObjectURI(k.t.found, k.label, k.id) }

// Token describes the key's token as it was when the key was opened.
func (k *Key) Token() Token { return k.t.found }

// Info describes the key.
func (k *Key) Info() KeyInfo { return k.info }

// Certificates returns the certificates on the key's token that were issued
// for the key, the one to use now first, and after them the chain above that
// one, marked Issuer. There may be none.
func (k *Key) Certificates(ctx context.Context) ([]Certificate, error) {
	k.life.RLock()
	defer k.life.RUnlock()
	if k.closed {
		return nil, errClosed
	}
	var certs []Certificate
	err := k.t.retry(ctx, k.c, k.login, func(s *session) error {
		all, err := k.t.certificates(s)
		certs = forKey(all, k.pub)
		return err
	})
	return certs, k.explain("certificates", err)
}

// Sign signs a digest, as crypto/rsa and crypto/ecdsa do: *rsa.PSSOptions ask
// for PSS, other options for PKCS#1 v1.5; ECDSA signatures are ASN.1 DER. The
// token has its own random numbers, so random is not used. A token that signs
// messages only makes an error here; SignMessage works then.
func (k *Key) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignMessage hashes message with opts.HashFunc() and signs that; by the token
// if need be.
func (k *Key) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignMessageContext(context.Background(), message, opts)
}

// SignContext is Sign, with a context for what comes before the signature
// itself: the wait for a session, the PIN. A call into the module cannot be
// ended.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	r, err := k.forDigest(digest, opts)
	if err != nil {
		return nil, k.explain("sign", err)
	}
	return k.sign(ctx, r)
}

// SignMessageContext is SignMessage with a context, as SignContext.
func (k *Key) SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	r, err := k.forMessage(message, opts)
	if err != nil {
		return nil, k.explain("sign", err)
	}
	return k.sign(ctx, r)
}

func (k *Key) sign(ctx context.Context, r request) ([]byte, error) {
	k.life.RLock()
	defer k.life.RUnlock()
	if k.closed {
		return nil, errClosed
	}
	var sig []byte
	err := k.t.retry(ctx, k.c, k.login, func(s *session) error {
		h, err := k.find(ctx, s)
		if err == nil {
			sig, err = k.signOn(ctx, s, h, r)
		}
		return err
	})
	if err == nil && k.unproven.Load() {
		if err = r.verify(k.pub, sig); err == nil {
			k.unproven.Store(false)
		} else {
			err = fmt.Errorf("%w: the token's signature does not verify with the public key", signer.ErrKeyMismatch)
		}
	}
	if err != nil {
		return nil, k.explain("sign", err)
	}
	return sig, nil
}

// signOn makes one signature on one session.
func (k *Key) signOn(ctx context.Context, s *session, h p11.ObjectHandle, r request) (sig []byte, err error) {
	job := signing{session: s.handle, key: h, mech: r.mech, data: r.data, out: s.out[:], context: k.always}
	var raw []byte
	if k.always {
		raw, err = k.authenticate(ctx, job)
	} else {
		raw, err = k.t.lib.fn.sign(job)
	}
	if err != nil {
		return nil, err
	}
	return r.encode(k.pub, raw)
}

// authenticate signs with a PIN for this signature alone.
func (k *Key) authenticate(ctx context.Context, job signing) (raw []byte, err error) {
	k.t.mu.Lock()
	slot, kept := k.t.slot, k.t.pin
	k.t.mu.Unlock()
	info, _, err := k.t.lib.describe(slot)
	if err != nil {
		return nil, err
	}
	pin, err := k.t.present(ctx, info, k.c, func() (signer.Secret, error) { return k.c.forKey(ctx, info, k.URI(), kept) }, func(pin []byte) error {
		job.pin = pin
		raw, err = k.t.lib.fn.sign(job)
		return err
	})
	if err != nil {
		return nil, err
	}
	k.t.keepPIN(k.c, pin)
	return raw, nil
}

// find returns the key's handle, looking for the key anew when handles have
// died since.
func (k *Key) find(ctx context.Context, s *session) (p11.ObjectHandle, error) {
	if c := k.handle.Load(); c != nil && c.gen == s.gen {
		return c.h, nil
	}
	var attrs []*p11.Attribute
	if len(k.id) > 0 {
		attrs = append(attrs, idIs(k.id))
	}
	if k.label != "" {
		attrs = append(attrs, labelIs(k.label))
	}
	objects, err := k.t.lib.objects(s, p11.CKO_PRIVATE_KEY, attrs...)
	if err != nil {
		return 0, err
	}
	var maybe []object
	for _, o := range objects {
		switch fit, err := k.t.fits(s, o, k.pub); {
		case err != nil:
			return 0, err
		case fit == fitsYes:
			k.handle.Store(&handle{s.gen, o.handle})
			return o.handle, nil
		case fit == fitsMaybe:
			maybe = append(maybe, o)
		}
	}
	for _, o := range maybe {
		fits, err := k.tried(ctx, s, o, len(maybe) == 1)
		if err != nil {
			return 0, err
		}
		if fits {
			k.handle.Store(&handle{s.gen, o.handle})
			return o.handle, nil
		}
	}
	if k.login && !k.t.userState(s.handle) {
		return 0, &CallError{"C_FindObjects", p11.CKR_USER_NOT_LOGGED_IN} // as it would say
	}
	return 0, signer.WithHint(fmt.Errorf("%w any more", signer.ErrKeyNotFound), listHint)
}

// tried reports whether an object that does not say what key it is is this one:
// by a trial, or if it is the only one or wants a PIN for that, by the next
// signature.
func (k *Key) tried(ctx context.Context, s *session, o object, only bool) (bool, error) {
	if only || k.always {
		k.unproven.Store(true)
		return true, nil
	}
	trial := &Key{t: k.t, c: k.c, pub: k.pub, label: k.label, id: k.id}
	trial.handle.Store(&handle{s.gen, o.handle})
	err := trial.prove(ctx, s)
	if classify(err) != failPlain {
		return false, err
	}
	return err == nil, nil
}

// Close ends the use of the key, once the signatures being made are done. The
// last key of a token to close ends the login to it.
func (k *Key) Close() error {
	k.life.Lock()
	defer k.life.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	return k.t.drop()
}

var errClosed = errors.New("the PKCS#11 key is closed")

func (k *Key) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %w", k.URI(), what, err)
}
