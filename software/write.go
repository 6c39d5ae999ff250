package software

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cloudflare/circl/sign"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// writeIterations of PBKDF2-HMAC-SHA-256 protect the keys holdfast writes: what
// OWASP asks for, and some tenths of a second at each reading. Of scrypt, OpenSSL
// reads only what takes less than 32 MiB, which is weaker than it should be.
const writeIterations = 600_000

// MarshalPrivateKey returns key as PKCS#8 in PEM. With a passphrase it is
// encrypted: PBES2 with PBKDF2-HMAC-SHA-256 and AES-256-CBC, which every OpenSSL
// since 1.1 reads. An ML-DSA key is written as its seed (RFC 9881), or expanded
// if it was read without one.
func MarshalPrivateKey(key crypto.Signer, passphrase signer.Secret) ([]byte, error) {
	plain, err := marshalPKCS8(key)
	if err != nil {
		return nil, fmt.Errorf("cannot write the private key: %w", err)
	}
	defer clear(plain)
	if passphrase.Empty() {
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain}), nil
	}
	sealed, err := encryptPKCS8(plain, passphrase.Reveal())
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: sealed}), nil
}

func marshalPKCS8(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
		return x509.MarshalPKCS8PrivateKey(k)
	case sign.PrivateKey:
		return marshalMLDSA(k)
	}
	return nil, unsupported("%T", key)
}

func encryptPKCS8(plain, pass []byte) ([]byte, error) {
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	rand.Read(salt)
	rand.Read(iv)
	key, err := pbkdf2.Key(sha256.New, string(pass), salt, writeIterations, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	data := append(make([]byte, 0, len(plain)+pad), plain...)
	for range pad {
		data = append(data, byte(pad))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)

	var b cryptobyte.Builder
	sequence := func(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, params func(b *cryptobyte.Builder)) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			params(b)
		})
	}
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { // EncryptedPrivateKeyInfo
		sequence(b, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}, func(b *cryptobyte.Builder) { // PBES2
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				sequence(b, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, func(b *cryptobyte.Builder) { // PBKDF2
					b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1OctetString(salt)
						b.AddASN1Int64(writeIterations)
						sequence(b, asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, addNull) // HMAC-SHA-256
					})
				})
				sequence(b, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, // AES-256-CBC
					func(b *cryptobyte.Builder) { b.AddASN1OctetString(iv) })
			})
		})
		b.AddASN1OctetString(data)
	})
	return b.Bytes()
}

func addNull(b *cryptobyte.Builder) { b.AddASN1NULL() }

// WriteKeyFile writes a private key to a new file that its owner alone may read
// (mode 0600; on Windows, who may read it is the directory's matter). It never
// replaces a file: one that exists is an error that wraps fs.ErrExist. When it
// returns, the key is on the disk; after an error there is no file.
func WriteKeyFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return signer.WithHint(fmt.Errorf("%s: %w, and holdfast does not overwrite a private key", oneLine(path), cause(err)),
			"name another file, or move that one out of the way")
	}
	if err != nil {
		return fmt.Errorf("%s: cannot create the file: %w", oneLine(path), cause(err))
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("%s: cannot write the private key: %w", oneLine(path), cause(err))
	}
	syncDirectory(filepath.Dir(path))
	return nil
}

// syncDirectory makes the new name last. Not every system can, and the file is
// written all the same.
func syncDirectory(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}
