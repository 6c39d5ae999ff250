// Package software reads and writes private keys and certificates in files,
// and makes new keys.
//
//	key, err := software.ReadKey(ctx, "key.pem", software.Options{Passphrase: ask})
//	chain, err := software.ReadCertificates(ctx, "cert.pem", software.Options{})
//
// A file says itself what it is; its name and suffix do not matter. Known are
//
//   - PEM, with any number of blocks in any order and any text between them;
//   - DER;
//   - PKCS#1, SEC 1 and PKCS#8 keys, each in PEM or DER;
//   - encrypted PKCS#8: PBES2 with PBKDF2 or scrypt and AES or triple DES in
//     CBC mode, the PKCS#12 schemes (RFC 7292) and PBES1 with DES;
//   - OpenSSL's old PEM encryption ("Proc-Type: 4,ENCRYPTED", RFC 1421);
//   - PKCS#12 with one key or several, or with certificates only, in DER or
//     BER, under a classic MAC, PBMAC1 (RFC 9579) or none.
//
// Keys are RSA of 2048 bits and more, ECDSA on P-256, P-384 and P-521, and
// ML-DSA-44, -65 and -87 (RFC 9881). RSA and ECDSA keys are those of crypto/rsa
// and crypto/ecdsa. ML-DSA keys are those of github.com/cloudflare/circl: they
// sign the message itself, with crypto.Hash(0) and an empty context. All are
// safe for concurrent use.
//
// # Errors
//
// Every error is one line that names the file and the place in it, and wraps
// one of package signer's sentinels where a caller may decide by it:
// signer.ErrPassphraseRequired, signer.ErrPassphraseIncorrect,
// signer.ErrMalformed, signer.ErrUnsupportedKey, signer.ErrKeyNotFound,
// signer.ErrCertificateNotFound. Where a person can mend it, signer.Hint says
// how. No error holds a secret or any byte of a key.
//
// A file is taken for hostile: its size, the work its key derivation may cost
// and the depth of its encoding are bounded.
package software
