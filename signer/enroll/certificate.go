package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512, by which P-384 and P-521 sign
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"

	"github.com/cloudflare/circl/sign"

	"github.com/holdfast-iam/holdfast/signer"
)

// EncodePEM returns certificates as PEM, one block after the other.
func EncodePEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// issue makes the certificate that template describes, for pub, signed by
// issuerKey. A nil issuer makes it self-signed.
//
// crypto/x509 knows no ML-DSA. It is asked for a certificate with a throw-away
// key, of which the public key and the algorithm are exchanged before the true
// key signs. All keys go this way, so that it is one that is well tested.
func issue(template *x509.Certificate, pub crypto.PublicKey, issuer *x509.Certificate, issuerKey crypto.Signer) (*x509.Certificate, error) {
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	scheme, err := signatureSchemeOf(issuerKey.Public())
	if err != nil {
		return nil, fmt.Errorf("issuer's key: %w", err)
	}
	spki, keyID, err := publicKeyInfo(pub)
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	template.SubjectKeyId = keyID
	parent := template
	if issuer != nil {
		if err := clip(template, issuer); err != nil {
			return nil, err
		}
		parent = &x509.Certificate{RawSubject: issuer.RawSubject, SubjectKeyId: issuer.SubjectKeyId}
	} else {
		template.AuthorityKeyId = keyID
	}
	if !template.NotAfter.After(template.NotBefore) {
		return nil, fmt.Errorf("lifetime is not positive: from %v to %v", template.NotBefore, template.NotAfter)
	}
	throwAway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, throwAway.Public(), throwAway)
	if err != nil {
		return nil, err
	}
	// TBSCertificate: version, serialNumber, signature, issuer, validity,
	// subject, subjectPublicKeyInfo, extensions (RFC 5280, section 4.1).
	der, err = resign(der, map[int][]byte{2: scheme.algorithm, 6: spki}, scheme, issuerKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// resign takes a signed structure (a certificate, request or CRL), exchanges
// elements of its signed part by index and signs it anew.
func resign(der []byte, exchange map[int][]byte, scheme *signatureScheme, key crypto.Signer) ([]byte, error) {
	var outer, inner []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	}
	if _, err := asn1.Unmarshal(outer[0].FullBytes, &inner); err != nil {
		return nil, err
	}
	for i, element := range exchange {
		inner[i] = asn1.RawValue{FullBytes: element}
	}
	tbs, err := asn1.Marshal(inner)
	if err != nil {
		return nil, err
	}
	sig, err := crypto.SignMessage(key, rand.Reader, tbs, scheme.hash)
	if err != nil {
		return nil, fmt.Errorf("sign with the %s key: %w", signer.DescribeKey(key.Public()), err)
	}
	if err := signer.Verify(key.Public(), tbs, sig, scheme.hash); err != nil {
		return nil, fmt.Errorf("the %s key made a signature that its own public key does not verify: %w", signer.DescribeKey(key.Public()), err)
	}
	return asn1.Marshal(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{
		asn1.RawValue{FullBytes: tbs},
		asn1.RawValue{FullBytes: scheme.algorithm},
		asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)},
	})
}

// A signatureScheme is how a key signs certificates.
type signatureScheme struct {
	hash      crypto.Hash // 0: the key takes the message itself
	algorithm []byte      // DER AlgorithmIdentifier
}

func signatureSchemeOf(pub crypto.PublicKey) (*signatureScheme, error) {
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	var id pkix.AlgorithmIdentifier
	var hash crypto.Hash
	switch k := pub.(type) {
	case *rsa.PublicKey:
		hash = crypto.SHA256
		id.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
		id.Parameters = asn1.NullRawValue // RFC 4055, section 5
	case *ecdsa.PublicKey:
		last := map[elliptic.Curve]int{elliptic.P256(): 2, elliptic.P384(): 3, elliptic.P521(): 4}[k.Curve]
		hash = map[int]crypto.Hash{2: crypto.SHA256, 3: crypto.SHA384, 4: crypto.SHA512}[last]
		id.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, last}
	case sign.PublicKey:
		oid, ok := mldsaOID(k)
		if !ok {
			return nil, fmt.Errorf("%w: %s", signer.ErrUnsupportedKey, signer.DescribeKey(pub))
		}
		id.Algorithm = oid
	}
	der, err := asn1.Marshal(id)
	return &signatureScheme{hash, der}, err
}

// maxRSABits keeps a request from costing its reader an hour: the work grows
// with the square of the size.
const maxRSABits = 16384

// checkKey refuses keys that IAM Roles Anywhere does not take.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch n := k.N.BitLen(); {
		case n > maxRSABits:
			return fmt.Errorf("%w: %s is too long, %d bits are the most", signer.ErrUnsupportedKey, signer.DescribeKey(pub), maxRSABits)
		case n >= 2048:
			return nil
		}
		return signer.WithHint(fmt.Errorf("%w: %s is too short, 2048 bits are the least", signer.ErrUnsupportedKey, signer.DescribeKey(pub)),
			"make an EC P-256 key, or an RSA key of 2048 bits or more")
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
	case sign.PublicKey:
		if _, ok := mldsaOID(k); ok {
			return nil
		}
	}
	if err := signer.CheckSupported(pub); err != nil {
		return err
	}
	return signer.WithHint(fmt.Errorf("%w: %s", signer.ErrUnsupportedKey, signer.DescribeKey(pub)),
		"use an EC (P-256, P-384, P-521), RSA or ML-DSA key")
}

func mldsaOID(pub sign.PublicKey) (asn1.ObjectIdentifier, bool) {
	k, ok := pub.Scheme().(interface{ Oid() asn1.ObjectIdentifier })
	if !ok || signer.MLDSAScheme(k.Oid()) == nil {
		return nil, false
	}
	return k.Oid(), true
}

// publicKeyInfo returns the DER SubjectPublicKeyInfo and the key identifier
// by RFC 7093, section 2, method 1: 160 bits of the SHA-256 of the key.
func publicKeyInfo(pub crypto.PublicKey) (spki, keyID []byte, err error) {
	if spki, err = signer.MarshalPublicKey(pub); err != nil {
		return nil, nil, err
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return spki, sum[:20], nil
}

// newSerial returns a random positive number of exactly 127 bits: 16 octets in
// DER, never fewer.
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}
