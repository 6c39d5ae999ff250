package signer

import "errors"

// Errors that every backend shares. They are wrapped in errors that name the
// object; test for them with errors.Is.
var (
	// ErrKeyMismatch: the private key is not the one the certificate was
	// issued for.
	ErrKeyMismatch = errors.New("private key does not match the certificate")

	// ErrKeyNotFound: the reference names no private key.
	ErrKeyNotFound = errors.New("no private key found")

	// ErrCertificateNotFound: the reference names no certificate.
	ErrCertificateNotFound = errors.New("no certificate found")

	// ErrUnsupportedKey: the key's algorithm, curve or size cannot be used.
	ErrUnsupportedKey = errors.New("unsupported key")

	// ErrPassphraseRequired: the object is encrypted and there was no way to
	// ask for its passphrase.
	ErrPassphraseRequired = errors.New("passphrase required")

	// ErrPassphraseIncorrect: the passphrase does not open the object.
	ErrPassphraseIncorrect = errors.New("passphrase is wrong")

	// ErrMalformed: the object is damaged, cut short or not what it claims
	// to be.
	ErrMalformed = errors.New("malformed")

	// ErrTokenNotFound: no token or device fits the reference.
	ErrTokenNotFound = errors.New("no such token")

	// ErrTokenGone: the token was there and is no more.
	ErrTokenGone = errors.New("token is gone")

	// ErrAmbiguous: the reference fits more than one object.
	ErrAmbiguous = errors.New("ambiguous")

	// ErrPINRequired: the token wants a PIN and there was no way to ask for
	// one.
	ErrPINRequired = errors.New("PIN required")

	// ErrPINIncorrect: the token refused the PIN. The same PIN is not tried
	// again.
	ErrPINIncorrect = errors.New("PIN is wrong")

	// ErrPINLocked: the token takes no PIN any more.
	ErrPINLocked = errors.New("PIN is locked")

	// ErrPINFinalTry: another wrong PIN would lock the token, so none was
	// tried.
	ErrPINFinalTry = errors.New("only one PIN try is left")

	// ErrPINExpired: the PIN has to be changed, or set, before it is of use.
	ErrPINExpired = errors.New("PIN must be changed first")
)

type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// WithHint returns err with a hint for the person who meets it: what to run,
// which file to mend, which group to join. It returns nil for a nil err. The
// hint is no part of err.Error().
func WithHint(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return &hintedError{err, hint}
}

// Hint returns the outermost hint in err's tree, or "".
func Hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// Hint lets other error types take part in [Hint] by having the same method.
func (e *hintedError) Hint() string { return e.hint }
