package software

import (
	"bytes"
	"crypto"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// readBags reads SafeContents (RFC 7292, section 4.2). Revocation lists and
// secrets in it are passed over.
func (x *pfx) readBags(bags cryptobyte.String, depth int) error {
	if depth > maxDepth {
		return malformed("PKCS#12 safes nested too deep")
	}
	for !bags.Empty() {
		var value cryptobyte.String
		bag, ok := readAlgorithm(&bags)
		if !ok || !bag.params.ReadASN1(&value, der.Tag(0).Constructed().ContextSpecific()) {
			return malformed("PKCS#12 bag")
		}
		id, err := localKeyID(bag.params)
		if err != nil {
			return err
		}
		switch bag.oid.String() {
		case oidKeyBag:
			err = x.keyBag(value, id, false)
		case oidShroudedBag:
			err = x.keyBag(value, id, true)
		case oidCertBag:
			err = x.certBag(value, id)
		case oidContentsBag:
			var nested cryptobyte.String
			if !value.ReadASN1(&nested, der.SEQUENCE) {
				return malformed("PKCS#12 bag of bags")
			}
			err = x.readBags(nested, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *pfx) keyBag(value cryptobyte.String, id []byte, encrypted bool) error {
	x.sawKey = true
	x.keys++
	if x.keys == 1 {
		x.keyID = id
	}
	if x.want&wantKeys == 0 {
		return nil
	}
	key, err := x.openBag(value, encrypted)
	if err != nil {
		return fmt.Errorf("private key %d in it: %w", x.keys, err)
	}
	x.addKey(key)
	return nil
}

// openBag does not trust a key before the MAC is checked, be it encrypted or not.
func (x *pfx) openBag(value cryptobyte.String, encrypted bool) (crypto.Signer, error) {
	if encrypted || x.mac != nil {
		if err := x.unlock(); err != nil {
			return nil, err
		}
	}
	if !encrypted {
		return parsePrivateKey(value)
	}
	alg, ciphertext, err := parseEncrypted(value)
	if err != nil {
		return nil, err
	}
	return x.decryptKey(alg, ciphertext, x.pass)
}

// certBag takes a CertBag. One whose certificate is not X.509 is passed over.
func (x *pfx) certBag(value cryptobyte.String, id []byte) error {
	if x.want&wantCertificates == 0 {
		return nil
	}
	var content, octets cryptobyte.String
	bag, ok := readAlgorithm(&value)
	if !ok || !bag.params.ReadASN1(&content, der.Tag(0).Constructed().ContextSpecific()) {
		return malformed("PKCS#12 certificate bag")
	}
	if bag.oid.String() != oidX509 {
		return nil
	}
	if !content.ReadASN1(&octets, der.OCTET_STRING) {
		return malformed("PKCS#12 certificate bag")
	}
	if err := x.addCertificate(octets); err != nil {
		return fmt.Errorf("certificate %d in it: %w", len(x.out.Certificates)+1, err)
	}
	x.certIDs = append(x.certIDs, id)
	return nil
}

// localKeyID returns the attribute that ties a certificate to its key, or nil.
func localKeyID(attributes cryptobyte.String) ([]byte, error) {
	if attributes.Empty() {
		return nil, nil
	}
	var set cryptobyte.String
	if !attributes.ReadASN1(&set, der.SET) {
		return nil, malformed("PKCS#12 bag attributes")
	}
	for !set.Empty() {
		var values, id cryptobyte.String
		attribute, ok := readAlgorithm(&set)
		if !ok {
			return nil, malformed("PKCS#12 bag attributes")
		}
		if attribute.oid.String() == oidLocalKeyID && attribute.params.ReadASN1(&values, der.SET) && values.ReadASN1(&id, der.OCTET_STRING) {
			return bytes.Clone(id), nil
		}
	}
	return nil, nil
}
