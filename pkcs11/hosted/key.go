package hosted

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// A Key is a private key on a token: a crypto.Signer and a
// crypto.MessageSigner. It outlives its host process: a new one finds the same
// key again, by its public half. It is safe for concurrent use.
type Key struct {
	host *Host
	uri  *pkcs11.URI // as asked for, with its PIN
	o    Options

	opened wire.Opened // of the first opening

	mu     sync.Mutex
	child  *child // which knows the key by handle
	handle uint32
	closed bool
}

var (
	_ crypto.Signer        = (*Key)(nil)
	_ crypto.MessageSigner = (*Key)(nil)
	_ io.Closer            = (*Key)(nil)
)

// OpenKey opens the private key that the URI names; of several, the one whose
// public key is hint, which may be nil.
func (h *Host) OpenKey(ctx context.Context, uri *pkcs11.URI, hint crypto.PublicKey, o Options) (*Key, error) {
	return h.open(ctx, wire.OpOpen, h.cfg.CallTimeout, &wire.Open{URI: uri, Public: hint, Options: o.wire(uri)}, uri, o)
}

// OpenIdentity is OpenKey and [Key.Certificates] in one round trip. That the
// token has no certificate for the key is no error.
func (h *Host) OpenIdentity(ctx context.Context, uri *pkcs11.URI, hint crypto.PublicKey, o Options) (*Key, []pkcs11.Certificate, error) {
	k, err := h.open(ctx, wire.OpOpen, h.cfg.CallTimeout, &wire.Open{URI: uri, Public: hint, Certificates: true, Options: o.wire(uri)}, uri, o)
	if err != nil {
		return nil, nil, err
	}
	if e := k.opened.CertificatesError; e != nil {
		_ = k.Close() // the error that led here is the one to tell
		return nil, nil, e
	}
	return k, k.opened.Certificates, nil
}

// GenerateKey makes a key pair on the token that the URI names, with the URI's
// label and id. It is not made a second time if the host fails meanwhile.
func (h *Host) GenerateKey(ctx context.Context, uri *pkcs11.URI, algorithm string, o Options) (*Key, error) {
	return h.open(ctx, wire.OpGenerate, generateFactor*h.cfg.CallTimeout, &wire.Generate{URI: uri, Algorithm: algorithm, Options: o.wire(uri)}, uri, o)
}

func (h *Host) open(ctx context.Context, op wire.Op, timeout time.Duration, m wire.Message, uri *pkcs11.URI, o Options) (*Key, error) {
	k := &Key{host: h, uri: uri, o: o}
	err := h.attempts(ctx, timeout, uri, o, func(a *attempt) error {
		a.once = op == wire.OpGenerate
		if err := a.call(ctx, op, m, &k.opened); err != nil {
			return err
		}
		if k.opened.Public == nil || k.opened.URI == nil {
			return fmt.Errorf("%w: a key without its public half", wire.ErrFrame)
		}
		k.child, k.handle = a.child, k.opened.Key
		return nil
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.opened.Public }

// URI returns a URI that names the key. It brings no PIN.
func (k *Key) URI() *pkcs11.URI { return k.opened.URI }

// Token describes the token as it was when the key was opened.
func (k *Key) Token() pkcs11.Token { return k.opened.Info.Token }

// Info describes the key.
func (k *Key) Info() pkcs11.KeyInfo { return k.opened.Info }

// Sign signs a digest. The random source is not used: the token has its own.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(context.Background(), false, digest, opts)
}

// SignMessage signs a message, hashing it with opts.HashFunc().
func (k *Key) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(context.Background(), true, message, opts)
}

// SignContext is Sign until ctx ends.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(ctx, false, digest, opts)
}

// SignMessageContext is SignMessage until ctx ends.
func (k *Key) SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(ctx, true, message, opts)
}

func (k *Key) sign(ctx context.Context, message bool, data []byte, opts crypto.SignerOpts) ([]byte, error) {
	m := wire.Sign{Message: message, Data: data}
	if opts != nil {
		m.Hash = uint32(opts.HashFunc())
	}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		m.PSS, m.Salt = true, pss.SaltLength
	}
	var out wire.Signature
	err := k.with(ctx, func(a *attempt, handle uint32) error {
		m.Key = handle
		err := a.call(ctx, wire.OpSign, &m, &out)
		if err == nil && k.host.cfg.Brief {
			k.host.sendAway(a.child)
		}
		return err
	})
	return out.Bytes, err
}

// Certificates returns the certificates on the token that belong to the key
// and, marked Issuer, those above them.
func (k *Key) Certificates(ctx context.Context) ([]pkcs11.Certificate, error) {
	var out wire.Certificates
	err := k.with(ctx, func(a *attempt, handle uint32) error {
		return a.call(ctx, wire.OpKeyCerts, &wire.KeyRef{Key: handle}, &out)
	})
	return out.Certificates, err
}

// with runs f with the key's handle in the attempt's child.
func (k *Key) with(ctx context.Context, f func(a *attempt, handle uint32) error) error {
	return k.host.attempts(ctx, k.host.cfg.CallTimeout, k.uri, k.o, func(a *attempt) error {
		handle, err := k.reopen(ctx, a)
		if err != nil {
			return err
		}
		return f(a, handle)
	})
}

// reopen finds the key again in a child that does not know it yet.
func (k *Key) reopen(ctx context.Context, a *attempt) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return 0, ErrClosed
	}
	if k.child == a.child {
		return k.handle, nil
	}
	var again wire.Opened
	if err := a.call(ctx, wire.OpOpen, &wire.Open{URI: k.uri, Public: k.opened.Public, Options: k.o.wire(k.uri)}, &again); err != nil {
		if errors.Is(err, signer.ErrTokenNotFound) {
			err = fmt.Errorf("%w: %w", signer.ErrTokenGone, err)
		}
		return 0, err
	}
	if p, ok := k.opened.Public.(interface{ Equal(crypto.PublicKey) bool }); ok && !p.Equal(again.Public) {
		return 0, fmt.Errorf("%s: %w: another key is in its place", k.uri, signer.ErrKeyNotFound)
	}
	k.child, k.handle = a.child, again.Key
	return k.handle, nil
}

// Close lets go of the key. It does not wait for the host.
func (k *Key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed && k.child.hears() {
		_ = k.child.send(0, wire.OpCloseKey, &wire.KeyRef{Key: k.handle}) // a child that is gone has forgotten it
	}
	k.closed = true
	return nil
}
