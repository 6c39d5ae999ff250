package software

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"fmt"
	"hash"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// macData is the MAC over a PKCS#12 file, which alone tells a wrong passphrase
// for sure.
type macData struct {
	hash   func() hash.Hash
	digest []byte

	// RFC 7292, section 4.
	salt       []byte
	iterations int

	// RFC 9579.
	pbmac1 bool
	kdf    pbkdf2Params
}

func parseMAC(s *cryptobyte.String) (*macData, error) {
	bad := malformed("PKCS#12 MAC")
	m := &macData{iterations: 1}
	var in, info, digest, salt cryptobyte.String
	if !s.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1(&info, der.SEQUENCE) {
		return nil, bad
	}
	alg, ok := readAlgorithm(&info)
	if !ok || !info.ReadASN1(&digest, der.OCTET_STRING) || !in.ReadASN1(&salt, der.OCTET_STRING) {
		return nil, bad
	}
	m.digest, m.salt = digest, salt
	if alg.oid.String() == "1.2.840.113549.1.5.14" { // salt and iterations here mean nothing
		return m, m.parsePBMAC1(alg.params)
	}
	if !in.Empty() && (!in.ReadASN1Integer(&m.iterations) || m.iterations < 1) {
		return nil, bad
	}
	if m.hash = digestHash(alg.oid); m.hash == nil {
		return nil, fmt.Errorf("%w: PKCS#12 with a MAC of digest %s", errEncryption, alg.oid)
	}
	if m.iterations > maxIterations {
		return nil, malformed("PKCS#12 MAC with %d iterations, where %d are the most", m.iterations, maxIterations)
	}
	return m, nil
}

// parsePBMAC1 reads PBMAC1-params. A key of fewer than 20 bytes would let an
// attacker guess it (RFC 9579, section 9), and none needs more than a digest.
func (m *macData) parsePBMAC1(params cryptobyte.String) error {
	m.pbmac1 = true
	var in cryptobyte.String
	if !params.ReadASN1(&in, der.SEQUENCE) {
		return malformed("PBMAC1 parameters")
	}
	kdf, ok := readAlgorithm(&in)
	if !ok {
		return malformed("PBMAC1 parameters")
	}
	scheme, ok := readAlgorithm(&in)
	if !ok {
		return malformed("PBMAC1 parameters")
	}
	if kdf.oid.String() != "1.2.840.113549.1.5.12" {
		return fmt.Errorf("%w: PBMAC1 with key derivation %s", errEncryption, kdf.oid)
	}
	if m.hash = hmacHash(scheme.oid); m.hash == nil {
		return fmt.Errorf("%w: PBMAC1 with MAC %s", errEncryption, scheme.oid)
	}
	var err error
	if m.kdf, err = parsePBKDF2(kdf.params); err != nil {
		return err
	}
	if m.kdf.keyLength < 20 || m.kdf.keyLength > 64 {
		return malformed("PBMAC1 with a key of %d bytes", m.kdf.keyLength)
	}
	return nil
}

func (p *parser) verifyMAC(m *macData, content []byte, pass password) (bool, error) {
	var key []byte
	if m.pbmac1 {
		var err error
		if key, err = p.pbkdf2(m.kdf, pass.utf8, m.kdf.keyLength); err != nil {
			return false, err
		}
	} else {
		if err := p.spend(m.iterations); err != nil {
			return false, err
		}
		key = pkcs12KDF(m.hash, pass.bmp, m.salt, m.iterations, 3, m.hash().Size())
	}
	mac := hmac.New(m.hash, key)
	mac.Write(content)
	return hmac.Equal(mac.Sum(nil), m.digest), nil
}

func digestHash(oid asn1.ObjectIdentifier) func() hash.Hash {
	switch oid.String() {
	case "1.3.14.3.2.26":
		return sha1.New
	case "2.16.840.1.101.3.4.2.4":
		return sha256.New224
	case "2.16.840.1.101.3.4.2.1":
		return sha256.New
	case "2.16.840.1.101.3.4.2.2":
		return sha512.New384
	case "2.16.840.1.101.3.4.2.3":
		return sha512.New
	case "2.16.840.1.101.3.4.2.5":
		return sha512.New512_224
	case "2.16.840.1.101.3.4.2.6":
		return sha512.New512_256
	}
	return nil
}
