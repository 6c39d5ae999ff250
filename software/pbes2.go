package software

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" // triple DES opens old keys
	"crypto/pbkdf2"
	"crypto/sha1" // as the PRF of old keys
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"fmt"
	"hash"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/scrypt"
)

// Bounds on scrypt: its memory is 128·N·r bytes, 256 MiB at most, and its time
// goes with N·r·p.
const (
	maxScryptNR  = 1 << 21
	maxScryptRP  = 1 << 12
	maxScryptNRP = 1 << 24
)

// pbes2 reads PBES2-params (RFC 8018, section A.4).
func (p *parser) pbes2(params cryptobyte.String, pass password) (cipher.Block, []byte, error) {
	var in, iv cryptobyte.String
	if !params.ReadASN1(&in, der.SEQUENCE) {
		return nil, nil, malformed("PBES2 parameters")
	}
	kdf, ok := readAlgorithm(&in)
	if !ok {
		return nil, nil, malformed("PBES2 key derivation")
	}
	scheme, ok := readAlgorithm(&in)
	if !ok {
		return nil, nil, malformed("PBES2 encryption scheme")
	}
	var size int
	newCipher := aes.NewCipher
	switch oid := scheme.oid.String(); oid {
	case "2.16.840.1.101.3.4.1.2":
		size = 16
	case "2.16.840.1.101.3.4.1.22":
		size = 24
	case "2.16.840.1.101.3.4.1.42":
		size = 32
	case "1.2.840.113549.3.7":
		size, newCipher = 24, des.NewTripleDESCipher
	default:
		return nil, nil, fmt.Errorf("%w: PBES2 with %s", errEncryption, schemeName(oid))
	}
	if !scheme.params.ReadASN1(&iv, der.OCTET_STRING) {
		return nil, nil, malformed("PBES2 initialization vector")
	}
	key, err := p.deriveKey(kdf, pass.utf8, size)
	if err != nil {
		return nil, nil, err
	}
	defer clear(key)
	block, err := newCipher(key)
	return block, iv, err
}

func (p *parser) deriveKey(kdf algorithm, pass []byte, size int) ([]byte, error) {
	switch oid := kdf.oid.String(); oid {
	case "1.2.840.113549.1.5.12":
		params, err := parsePBKDF2(kdf.params)
		if err != nil {
			return nil, err
		}
		if params.keyLength != 0 && params.keyLength != size {
			return nil, malformed("PBKDF2 for a key of %d bytes, where the cipher takes %d", params.keyLength, size)
		}
		return p.pbkdf2(params, pass, size)
	case "1.3.6.1.4.1.11591.4.11":
		return p.scrypt(kdf.params, pass, size)
	default:
		return nil, fmt.Errorf("%w: PBES2 with key derivation %s", errEncryption, oid)
	}
}

type pbkdf2Params struct {
	salt       []byte
	iterations int
	keyLength  int // 0 if it is not given
	prf        func() hash.Hash
}

// parsePBKDF2 reads PBKDF2-params (RFC 8018, section A.2). The PRF is SHA-1 if
// it is not given, and its NULL parameters may be missing.
func parsePBKDF2(params cryptobyte.String) (pbkdf2Params, error) {
	r := pbkdf2Params{prf: sha1.New}
	var in, salt cryptobyte.String
	if !params.ReadASN1(&in, der.SEQUENCE) {
		return r, malformed("PBKDF2 parameters")
	}
	if in.PeekASN1Tag(der.SEQUENCE) {
		return r, fmt.Errorf("%w: PBKDF2 with a salt from elsewhere", errEncryption)
	}
	if !in.ReadASN1(&salt, der.OCTET_STRING) {
		return r, malformed("PBKDF2 salt")
	}
	if !in.ReadASN1Integer(&r.iterations) || r.iterations < 1 {
		return r, malformed("PBKDF2 iteration count")
	}
	if in.PeekASN1Tag(der.INTEGER) && (!in.ReadASN1Integer(&r.keyLength) || r.keyLength < 1) {
		return r, malformed("PBKDF2 key length")
	}
	r.salt = salt
	if in.Empty() {
		return r, nil
	}
	prf, ok := readAlgorithm(&in)
	if !ok || !in.Empty() {
		return r, malformed("PBKDF2 pseudorandom function")
	}
	if r.prf = hmacHash(prf.oid); r.prf == nil {
		return r, fmt.Errorf("%w: PBKDF2 with pseudorandom function %s", errEncryption, prf.oid)
	}
	return r, nil
}

// hmacHash returns the hash of an HMAC (RFC 8018, section B.1), or nil.
func hmacHash(oid asn1.ObjectIdentifier) func() hash.Hash {
	switch oid.String() {
	case "1.2.840.113549.2.7":
		return sha1.New
	case "1.2.840.113549.2.8":
		return sha256.New224
	case "1.2.840.113549.2.9":
		return sha256.New
	case "1.2.840.113549.2.10":
		return sha512.New384
	case "1.2.840.113549.2.11":
		return sha512.New
	case "1.2.840.113549.2.12":
		return sha512.New512_224
	case "1.2.840.113549.2.13":
		return sha512.New512_256
	}
	return nil
}

func (p *parser) pbkdf2(params pbkdf2Params, pass []byte, size int) ([]byte, error) {
	if params.iterations > maxIterations {
		return nil, malformed("PBKDF2 with %d iterations, where %d are the most", params.iterations, maxIterations)
	}
	blocks := (size + params.prf().Size() - 1) / params.prf().Size()
	if err := p.spend(params.iterations * blocks); err != nil {
		return nil, err
	}
	return pbkdf2.Key(params.prf, string(pass), params.salt, params.iterations, size)
}

// scrypt reads scrypt-params (RFC 7914, section 7).
func (p *parser) scrypt(params cryptobyte.String, pass []byte, size int) ([]byte, error) {
	var in, salt cryptobyte.String
	var n, r, par int64
	var keyLength int
	if !params.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1(&salt, der.OCTET_STRING) ||
		!in.ReadASN1Integer(&n) || !in.ReadASN1Integer(&r) || !in.ReadASN1Integer(&par) {
		return nil, malformed("scrypt parameters")
	}
	if !in.Empty() && (!in.ReadASN1Integer(&keyLength) || keyLength != size || !in.Empty()) {
		return nil, malformed("scrypt key length")
	}
	if n < 2 || n&(n-1) != 0 || r < 1 || par < 1 {
		return nil, malformed("scrypt with N=%d, r=%d, p=%d", n, r, par)
	}
	// Each product is bounded before the next can overflow.
	if n > maxScryptNR || r > maxScryptRP || par > maxScryptRP || n*r > maxScryptNR || r*par > maxScryptRP || n*r*par > maxScryptNRP {
		return nil, malformed("scrypt with N=%d, r=%d, p=%d takes more memory or time than a key should", n, r, par)
	}
	if err := p.spend(int(n * r * par)); err != nil {
		return nil, err
	}
	return scrypt.Key(pass, salt, int(n), int(r), int(par), size)
}
