package software

import (
	"crypto/cipher"
	"crypto/des" // opens old keys
	"crypto/md5" // likewise
	"crypto/sha1"
	"hash"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// A password has two forms: PBES2 and PBMAC1 take its bytes, the schemes of
// PKCS#12 take UTF-16 that ends in a zero.
type password struct {
	utf8 []byte
	bmp  []byte
}

func newPassword(b []byte) password {
	var units []uint16
	if utf8.Valid(b) {
		units = utf16.Encode([]rune(string(b)))
	} else {
		for _, c := range b { // Latin-1, as OpenSSL takes it
			units = append(units, uint16(c))
		}
	}
	bmp := make([]byte, 0, 2*len(units)+2)
	for _, u := range append(units, 0) {
		bmp = append(bmp, byte(u>>8), byte(u))
	}
	return password{b, bmp}
}

// pbeParams reads the PBEParameter of PBES1 and of PKCS#12, which are alike.
func (p *parser) pbeParams(params cryptobyte.String, blocks int) (salt []byte, iterations int, err error) {
	var in, s cryptobyte.String
	if !params.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1(&s, der.OCTET_STRING) ||
		!in.ReadASN1Integer(&iterations) || iterations < 1 || !in.Empty() {
		return nil, 0, malformed("parameters of its encryption")
	}
	if iterations > maxIterations {
		return nil, 0, malformed("key derivation with %d iterations, where %d are the most", iterations, maxIterations)
	}
	return s, iterations, p.spend(iterations * blocks)
}

// pbes1 is PBES1 (RFC 8018, section 6.1) with DES and MD5 or SHA-1.
func (p *parser) pbes1(oid string, params cryptobyte.String, pass password) (cipher.Block, []byte, error) {
	salt, iterations, err := p.pbeParams(params, 1)
	if err != nil {
		return nil, nil, err
	}
	h := sha1.New()
	if oid == "1.2.840.113549.1.5.3" {
		h = md5.New()
	}
	h.Write(pass.utf8)
	h.Write(salt)
	key := h.Sum(nil)
	for range iterations - 1 {
		h.Reset()
		h.Write(key)
		key = h.Sum(key[:0])
	}
	defer clear(key[:8])
	block, err := des.NewCipher(key[:8])
	return block, key[8:16], err
}

// pkcs12PBE is the encryption of RFC 7292, appendix C, but for its RC4.
func (p *parser) pkcs12PBE(oid string, params cryptobyte.String, pass password) (cipher.Block, []byte, error) {
	salt, iterations, err := p.pbeParams(params, 3)
	if err != nil {
		return nil, nil, err
	}
	derive := func(id byte, size int) []byte {
		return pkcs12KDF(sha1.New, pass.bmp, salt, iterations, id, size)
	}
	iv := derive(2, 8)
	var block cipher.Block
	switch oid {
	case "1.2.840.113549.1.12.1.3":
		block, err = des.NewTripleDESCipher(derive(1, 24))
	case "1.2.840.113549.1.12.1.4":
		key := derive(1, 16)
		block, err = des.NewTripleDESCipher(append(key, key[:8]...))
	case "1.2.840.113549.1.12.1.5":
		block = newRC2(derive(1, 16))
	default:
		block = newRC2(derive(1, 5))
	}
	return block, iv, err
}

// pkcs12KDF is the key derivation of RFC 7292, appendix B.2: id 1 makes a key,
// 2 an initialization vector and 3 a MAC key.
func pkcs12KDF(newHash func() hash.Hash, pass, salt []byte, iterations int, id byte, size int) []byte {
	h := newHash()
	v := h.BlockSize()
	diversifier := make([]byte, v)
	for i := range diversifier {
		diversifier[i] = id
	}
	in := append(repeat(salt, v), repeat(pass, v)...)
	var out []byte
	for {
		h.Reset()
		h.Write(diversifier)
		h.Write(in)
		a := h.Sum(nil)
		for range iterations - 1 {
			h.Reset()
			h.Write(a)
			a = h.Sum(a[:0])
		}
		if out = append(out, a...); len(out) >= size {
			return out[:size]
		}
		// Add a, repeated to v bytes, and one to each block of in.
		for block := in; len(block) > 0; block = block[v:] {
			carry := 1
			for i := v - 1; i >= 0; i-- {
				carry += int(block[i]) + int(a[i%len(a)])
				block[i] = byte(carry)
				carry >>= 8
			}
		}
	}
}

// repeat fills whole blocks of v bytes with copies of b.
func repeat(b []byte, v int) []byte {
	if len(b) == 0 {
		return nil
	}
	out := make([]byte, (len(b)+v-1)/v*v)
	for i := range out {
		out[i] = b[i%len(b)]
	}
	return out
}
