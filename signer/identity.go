package signer

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"time"
)

// An Identity is a private key, the certificate issued for it and the chain
// above that. It implements [crypto.Signer] and [crypto.MessageSigner]. It is
// safe for concurrent use if its key is; all of holdfast's backends are.
type Identity struct {
	key   crypto.Signer
	leaf  *x509.Certificate
	pub   crypto.PublicKey
	chain []*x509.Certificate
}

// New joins key and leaf, and orders what it needs of others with
// [OrderChain]. It returns an error that wraps [ErrKeyMismatch] if key is not
// the one leaf was issued for, and [ErrUnsupportedKey] for Ed25519, which no
// AWS signing algorithm takes. The Identity owns key from then on; after an
// error the caller still does.
func New(key crypto.Signer, leaf *x509.Certificate, others []*x509.Certificate) (*Identity, error) {
	pub, err := PublicKey(leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w", leaf.Subject, err)
	}
	if err := CheckSupported(pub); err != nil {
		return nil, err
	}
	if !SamePublicKey(key.Public(), pub) {
		return nil, WithHint(
			fmt.Errorf("%w: the certificate %q (serial %x) is for another %s key than the %s key given",
				ErrKeyMismatch, leaf.Subject, leaf.SerialNumber, DescribeKey(pub), DescribeKey(key.Public())),
			"name the private key that made the certificate's request, or request a certificate for this key")
	}
	return &Identity{key: key, leaf: leaf, pub: pub, chain: OrderChain(leaf, others)}, nil
}

// CheckSupported returns an error that wraps [ErrUnsupportedKey] and gives the
// reason if no AWS signing algorithm takes such a key.
func CheckSupported(pub crypto.PublicKey) error {
	if _, ok := pub.(ed25519.PublicKey); ok {
		return WithHint(
			fmt.Errorf("%w: Ed25519: IAM Roles Anywhere has no signing algorithm for it", ErrUnsupportedKey),
			"use an EC P-256, RSA or ML-DSA key")
	}
	return nil
}

// Public returns the public key of the certificate.
func (id *Identity) Public() crypto.PublicKey { return id.pub }

// Sign signs a digest as the key's own Sign does. A nil random means
// crypto/rand.
func (id *Identity) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return id.key.Sign(orRand(random), digest, opts)
}

// SignMessage signs a message, hashing it with opts.HashFunc() unless the key
// wants to do so itself. A nil random means crypto/rand.
func (id *Identity) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return crypto.SignMessage(id.key, orRand(random), message, opts)
}

// SignMessageContext is SignMessage until ctx ends, if the key knows how to stop
// then: hardware may take long, or never answer.
func (id *Identity) SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	k, ok := id.key.(interface {
		SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error)
	})
	if !ok {
		return id.SignMessage(nil, message, opts)
	}
	return k.SignMessageContext(ctx, message, opts)
}

// Certificate returns the leaf certificate.
func (id *Identity) Certificate() *x509.Certificate { return id.leaf }

// Chain returns the intermediate certificates, the leaf's issuer first,
// without leaf and root; at most [MaxChain].
func (id *Identity) Chain() []*x509.Certificate { return append([]*x509.Certificate(nil), id.chain...) }

// TLSCertificate returns the identity as a certificate for crypto/tls.
func (id *Identity) TLSCertificate() tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{id.leaf.Raw}, PrivateKey: id, Leaf: id.leaf}
	for _, ca := range id.chain {
		c.Certificate = append(c.Certificate, ca.Raw)
	}
	return c
}

// Close releases the key if its backend holds anything open.
func (id *Identity) Close() error {
	if c, ok := id.key.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func orRand(r io.Reader) io.Reader {
	if r == nil {
		return rand.Reader
	}
	return r
}

// SelectLeaf picks from certs the certificate issued for pub. Of several it
// takes the one that is valid at the given time and ends last; if none is for
// pub, the first, so that [New] can say what does not match. The others are
// returned in their order.
func SelectLeaf(pub crypto.PublicKey, certs []*x509.Certificate, at time.Time) (leaf *x509.Certificate, others []*x509.Certificate) {
	best := -1
	for i, c := range certs {
		p, err := PublicKey(c)
		if err != nil || !SamePublicKey(pub, p) {
			continue
		}
		if best < 0 || better(c, certs[best], at) {
			best = i
		}
	}
	if best < 0 {
		if len(certs) == 0 {
			return nil, nil
		}
		best = 0
	}
	others = append(others, certs[:best]...)
	return certs[best], append(others, certs[best+1:]...)
}

func better(a, b *x509.Certificate, at time.Time) bool {
	if validA, validB := validAt(a, at), validAt(b, at); validA != validB {
		return validA
	}
	return a.NotAfter.After(b.NotAfter)
}

func validAt(c *x509.Certificate, at time.Time) bool {
	return !at.Before(c.NotBefore) && !at.After(c.NotAfter)
}
