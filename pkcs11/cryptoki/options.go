//go:build cgo

package cryptoki

import (
	"context"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// These are package pkcs11's, so that a program without cgo knows them too.
type (
	Token       = pkcs11.Token
	Certificate = pkcs11.Certificate
	KeyInfo     = pkcs11.KeyInfo
	Contents    = pkcs11.Contents
)

// Options says how to log in and how much of a token to use. The zero value
// works for tokens that want no PIN and for URIs that bring their own.
type Options struct {
	// PIN is asked for the user PIN of a token, once for each login. A PIN
	// that the URI brings (pin-source, pin-value) goes before. A PIN is
	// presented to a token once: if the token refuses it, the same PIN from
	// whatever source is an error without a try. Nil means there is none.
	PIN func(ctx context.Context, t Token) (signer.Secret, error)

	// Accepted is told when the token took a PIN that was presented. It may be
	// nil.
	Accepted func(ctx context.Context, t Token)

	// KeyPIN is asked for the PIN at each signature of a key that always
	// authenticates, unless ReusePIN is set or the URI brings the PIN. Nil
	// means PIN.
	KeyPIN func(ctx context.Context, t Token, key *pkcs11.URI) (signer.Secret, error)

	// ReusePIN keeps the PIN in memory from the login on: for keys that
	// always authenticate, and to log in again when a login is lost.
	ReusePIN bool

	// AllowFinalTry presents a PIN even if a wrong one would lock the token.
	AllowFinalTry bool

	// MaxSessions bounds the sessions that the open keys of a token share for
	// signing; the largest bound of them counts. Zero means 8. A token's own
	// limit holds too.
	MaxSessions int

	// AlwaysAuthenticate makes GenerateKey make a key that wants the PIN at
	// each signature.
	AlwaysAuthenticate bool

	// Replace lets ImportCertificate put the certificate in the place of
	// those that the key has.
	Replace bool
}

const defaultMaxSessions = 8
