package software

import (
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// parseEncrypted splits an EncryptedPrivateKeyInfo (RFC 5958).
func parseEncrypted(data []byte) (algorithm, []byte, error) {
	s := cryptobyte.String(data)
	var in, ciphertext cryptobyte.String
	if !s.ReadASN1(&in, der.SEQUENCE) {
		return algorithm{}, nil, malformed("%s", whyNoElement(data))
	}
	alg, ok := readAlgorithm(&in)
	if !ok || !in.ReadASN1(&ciphertext, der.OCTET_STRING) || !in.Empty() || !s.Empty() {
		return algorithm{}, nil, malformed("not an encrypted PKCS#8 key")
	}
	return alg, ciphertext, nil
}

// decrypt opens what a password encrypts, in PKCS#8 and in PKCS#12. It returns
// an error that wraps signer.ErrPassphraseIncorrect if the padding is wrong;
// one wrong passphrase in about 256 passes that, so the caller looks at the
// outline of what comes out.
func (p *parser) decrypt(alg algorithm, ciphertext []byte, pass password) ([]byte, error) {
	block, iv, err := p.blockCipher(alg, pass)
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(iv) != size {
		return nil, malformed("an initialization vector of %d bytes, where the cipher takes %d", len(iv), size)
	}
	if len(ciphertext) == 0 || len(ciphertext)%size != 0 {
		return nil, malformed("%d encrypted bytes, which are not whole blocks", len(ciphertext))
	}
	plain := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, ciphertext)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > size {
		return nil, errPassphrase
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return nil, errPassphrase
		}
	}
	return plain[:len(plain)-pad], nil
}

// blockCipher derives the key of an encryption scheme from the password.
func (p *parser) blockCipher(alg algorithm, pass password) (cipher.Block, []byte, error) {
	oid := alg.oid.String()
	switch oid {
	case "1.2.840.113549.1.5.13":
		return p.pbes2(alg.params, pass)
	case "1.2.840.113549.1.5.3", "1.2.840.113549.1.5.10":
		return p.pbes1(oid, alg.params, pass)
	case "1.2.840.113549.1.12.1.3", "1.2.840.113549.1.12.1.4", "1.2.840.113549.1.12.1.5", "1.2.840.113549.1.12.1.6":
		return p.pkcs12PBE(oid, alg.params, pass)
	}
	return nil, nil, fmt.Errorf("%w: %s", errEncryption, schemeName(oid))
}

// schemeName names what this package does not decrypt.
func schemeName(oid string) string {
	switch oid {
	case "1.2.840.113549.1.5.1":
		return "pbeWithMD2AndDES-CBC"
	case "1.2.840.113549.1.5.4":
		return "pbeWithMD2AndRC2-CBC"
	case "1.2.840.113549.1.5.6":
		return "pbeWithMD5AndRC2-CBC"
	case "1.2.840.113549.1.5.11":
		return "pbeWithSHA1AndRC2-CBC"
	case "1.2.840.113549.1.12.1.1":
		return "pbeWithSHAAnd128BitRC4"
	case "1.2.840.113549.1.12.1.2":
		return "pbeWithSHAAnd40BitRC4"
	case "1.3.14.3.2.7":
		return "DES-CBC"
	case "1.2.840.113549.3.2":
		return "RC2-CBC"
	case "2.16.840.1.101.3.4.1.6", "2.16.840.1.101.3.4.1.26", "2.16.840.1.101.3.4.1.46":
		return "AES-GCM"
	case "1.2.392.200011.61.1.1.1.2", "1.2.392.200011.61.1.1.1.3", "1.2.392.200011.61.1.1.1.4":
		return "Camellia-CBC"
	case "1.2.410.200004.1.4":
		return "SEED-CBC"
	case "1.2.156.10197.1.104.2":
		return "SM4-CBC"
	}
	return oid
}
