package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// MLDSAScheme returns the ML-DSA parameter set (FIPS 204) that an object
// identifier of RFC 9881 names, or nil. Go 1.26 has no public type for these
// keys; holdfast uses those of github.com/cloudflare/circl, whose private keys
// are crypto.Signers over the raw message (crypto.Hash(0), empty context).
func MLDSAScheme(oid asn1.ObjectIdentifier) sign.Scheme {
	const arc = "2.16.840.1.101.3.4.3."
	switch oid.String() {
	case arc + "17":
		return mldsa44.Scheme()
	case arc + "18":
		return mldsa65.Scheme()
	case arc + "19":
		return mldsa87.Scheme()
	}
	return nil
}

type subjectPublicKeyInfo struct {
	Raw       asn1.RawContent
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

// PublicKey returns the certificate's public key. Unlike cert.PublicKey it
// knows ML-DSA.
func PublicKey(cert *x509.Certificate) (crypto.PublicKey, error) {
	if cert.PublicKey != nil {
		return cert.PublicKey, nil
	}
	return ParsePublicKey(cert.RawSubjectPublicKeyInfo)
}

// ParsePublicKey reads a DER SubjectPublicKeyInfo (RFC 5280, RFC 9881).
func ParsePublicKey(spki []byte) (crypto.PublicKey, error) {
	var info subjectPublicKeyInfo
	if rest, err := asn1.Unmarshal(spki, &info); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("public key: %w SubjectPublicKeyInfo", ErrMalformed)
	}
	scheme := MLDSAScheme(info.Algorithm.Algorithm)
	if scheme == nil {
		pub, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			return nil, fmt.Errorf("%w: public key algorithm %v: %v", ErrUnsupportedKey, info.Algorithm.Algorithm, err)
		}
		return pub, nil
	}
	pub, err := scheme.UnmarshalBinaryPublicKey(info.Key.RightAlign())
	if err != nil {
		return nil, fmt.Errorf("%s public key: %w: %v", scheme.Name(), ErrMalformed, err)
	}
	return pub, nil
}

// MarshalPublicKey returns pub as a DER SubjectPublicKeyInfo. Unlike
// x509.MarshalPKIXPublicKey it knows ML-DSA.
func MarshalPublicKey(pub crypto.PublicKey) ([]byte, error) {
	k, ok := pub.(sign.PublicKey)
	if !ok {
		return x509.MarshalPKIXPublicKey(pub)
	}
	raw, err := k.MarshalBinary()
	if err != nil {
		return nil, err
	}
	withOID, ok := k.Scheme().(interface{ Oid() asn1.ObjectIdentifier })
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrUnsupportedKey, k.Scheme().Name())
	}
	return asn1.Marshal(subjectPublicKeyInfo{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: withOID.Oid()},
		Key:       asn1.BitString{Bytes: raw, BitLength: 8 * len(raw)},
	})
}

// SamePublicKey compares encodings, so that two types of the same key agree.
func SamePublicKey(a, b crypto.PublicKey) bool {
	if e, ok := a.(interface{ Equal(crypto.PublicKey) bool }); ok && e.Equal(b) {
		return true
	}
	x, errX := MarshalPublicKey(a)
	y, errY := MarshalPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// DescribeKey names a public key for people: "RSA-2048", "EC P-256",
// "ML-DSA-65".
func DescribeKey(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "EC " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case sign.PublicKey:
		return k.Scheme().Name()
	}
	return fmt.Sprintf("%T", pub)
}

// Verify checks a signature over message. For RSA, opts selects PKCS#1 v1.5 or
// PSS as in crypto/rsa; ECDSA signatures are ASN.1 DER; ML-DSA and Ed25519 take
// crypto.Hash(0).
func Verify(pub crypto.PublicKey, message, sig []byte, opts crypto.SignerOpts) error {
	bad := errors.New("signature does not verify")
	digest := message
	if h := opts.HashFunc(); h != 0 {
		w := h.New()
		w.Write(message)
		digest = w.Sum(nil)
	}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(k, opts.HashFunc(), digest, sig, pss)
		}
		return rsa.VerifyPKCS1v15(k, opts.HashFunc(), digest, sig)
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(k, digest, sig) {
			return bad
		}
		return nil
	case ed25519.PublicKey:
		if !ed25519.Verify(k, message, sig) {
			return bad
		}
		return nil
	case sign.PublicKey:
		if len(sig) != k.Scheme().SignatureSize() || !k.Scheme().Verify(k, message, sig, nil) {
			return bad
		}
		return nil
	}
	return fmt.Errorf("%w: %T", ErrUnsupportedKey, pub)
}

// CheckSignature checks that parent's key signed child, and nothing else:
// neither that parent is a CA nor that either is valid. Unlike
// x509.Certificate.CheckSignatureFrom it knows ML-DSA.
func CheckSignature(child, parent *x509.Certificate) error {
	if parent.PublicKey != nil {
		return parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
	}
	pub, err := PublicKey(parent)
	if err != nil {
		return err
	}
	return Verify(pub, child.RawTBSCertificate, child.Signature, crypto.Hash(0))
}
