//go:build cgo

// Package cryptoki uses private keys on PKCS#11 tokens from within this
// process. It needs cgo, and it trusts the module: a module that crashes or
// hangs takes the process with it.
//
//	m, err := cryptoki.Load("/usr/lib/softhsm/libsofthsm2.so")
//	defer m.Close()
//	u, err := pkcs11.Parse("pkcs11:token=prod;object=web?pin-source=/run/pin")
//	key, err := m.OpenKey(ctx, u, nil, cryptoki.Options{})
//	defer key.Close()
//	sig, err := key.Sign(nil, digest[:], crypto.SHA256)
//
// A [Key] is a crypto.Signer and a crypto.MessageSigner for RSA (PKCS#1 v1.5
// and PSS) and ECDSA on P-256, P-384 and P-521. A certificate's URI is enough
// to find its key.
//
// # PINs
//
// A PIN comes from the URI (pin-source, pin-value) or from [Options]. It is
// presented once: a PIN that the token refused is never given to that token
// again by this process, and none is given when a wrong one would lock the
// token, unless Options.AllowFinalTry is set. The login is the process's, as
// PKCS#11 has it: all keys of a token share it, and the last to close ends it.
//
// # Recovery
//
// A signature that fails because a session, a login, an object handle or the
// token itself has gone is made once more after that is mended. What this
// process cannot mend is an error that wraps pkcs11.ErrModuleFailed: start
// another.
package cryptoki
