// Package signer joins a private key to the certificate that names it.
//
// Every backend of holdfast (a key file, a PKCS#11 token, a TPM) ends in a
// [crypto.Signer]. [New] takes that signer, the certificate issued for it and
// whatever other certificates lay beside it, and returns an [Identity]: a
// signer that is known to fit its certificate and carries a clean, ordered
// chain.
//
//	id, err := signer.New(key, leaf, others)
//	if errors.Is(err, signer.ErrKeyMismatch) { … }
//	sig, err := id.SignMessage(rand.Reader, message, crypto.SHA256)
//
// An Identity is a true crypto.Signer and a [crypto.MessageSigner]: it takes a
// digest, honours PKCS#1 v1.5 and PSS options, and works under crypto/tls and
// crypto/x509. Nothing in this package knows where a key lives, nor of AWS.
//
// # Errors
//
// Errors that a caller may decide by are sentinels such as [ErrKeyMismatch].
// Errors that a person can mend carry a hint; [Hint] returns it. No error
// contains a secret.
package signer
