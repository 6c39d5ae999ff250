package pkcs11

import (
	"crypto"
	"crypto/x509"
)

// A Certificate is a certificate that lies on a token.
type Certificate struct {
	// DER is the certificate as the token holds it.
	DER []byte
	// X509 is nil when DER does not parse.
	X509  *x509.Certificate
	Label string
	ID    []byte
	Token Token
	// Issuer marks a certificate that was not asked for but is of the chain
	// above one that was.
	Issuer bool
}

// URI returns a URI that names this certificate and its key.
func (c Certificate) URI() *URI { return ObjectURI(c.Token, c.Label, c.ID) }

// A KeyInfo describes a private key, or, where no PIN was given and the token
// hides the private half, its public one.
type KeyInfo struct {
	Label string
	ID    []byte
	Token Token
	// Algorithm is "RSA-2048", "EC P-256" or what else the token calls it.
	Algorithm string
	// Public is nil if the token does not show the public key or this program
	// does not know its kind.
	Public crypto.PublicKey
	// PublicOnly: only the public half was seen.
	PublicOnly bool
	// AlwaysAuthenticate: each signature takes the PIN again.
	AlwaysAuthenticate bool
	// Extractable: the token would give the private key away. Nil where it
	// does not say.
	Extractable *bool
	// CanSign is the token's word on CKA_SIGN. Nil where it does not say.
	CanSign *bool
	// Certificate is the index in Contents.Certificates of the certificate
	// for this key (the one that ends last), or -1.
	Certificate int
}

// URI returns a URI that names this key and its certificate.
func (k KeyInfo) URI() *URI { return ObjectURI(k.Token, k.Label, k.ID) }

// Contents is what was seen on a token.
type Contents struct {
	Token        Token
	Keys         []KeyInfo
	Certificates []Certificate
	// LoggedIn is false if only what anyone may see was looked for.
	LoggedIn bool
	// Err is why the token could not be read, or not entirely.
	Err error
}

// ObjectURI returns the URI of an object on a token: the token's, the label
// unless it is empty, the id unless it is empty. It names no type, so that it
// stands for a key and its certificate alike.
func ObjectURI(t Token, label string, id []byte) *URI {
	u := t.URI()
	if label != "" {
		u = u.With(AttrObject, label)
	}
	if len(id) > 0 {
		u = u.With(AttrID, string(id))
	}
	return u
}

// X509 returns the certificates that parsed, in their order, as package signer
// takes them.
func X509(certs []Certificate) []*x509.Certificate {
	var parsed []*x509.Certificate
	for _, c := range certs {
		if c.X509 != nil {
			parsed = append(parsed, c.X509)
		}
	}
	return parsed
}
