package rolesanywheretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
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

// verifyRequest checks the signature over a string to sign with the leaf's
// key, by the algorithm the request claims.
func verifyRequest(leaf *x509.Certificate, algorithm, stringToSign string, signature []byte) error {
	want, err := requestAlgorithm(leaf)
	if err != nil {
		return err
	}
	if algorithm != want {
		return fmt.Errorf("algorithm is %s, the certificate's key needs %s", algorithm, want)
	}
	digest := sha256.Sum256([]byte(stringToSign))
	ok := false
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, digest[:], signature) // minimal DER, nothing trailing
	default:
		ok = verifyMLDSA(leaf, []byte(stringToSign), signature) == nil
	}
	if !ok {
		return errors.New("the signature does not verify with the certificate's key")
	}
	return nil
}

// requestAlgorithm returns the signing algorithm of the certificate's key, or
// an error if the service takes no such key.
func requestAlgorithm(c *x509.Certificate) (string, error) {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 {
			return "", fmt.Errorf("an RSA key of %d bits, want 2048 or more", bits)
		}
		return algorithmRSA, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return algorithmECDSA, nil
		}
		return "", fmt.Errorf("an EC key on %s, want P-256, P-384 or P-521", key.Curve.Params().Name)
	case nil:
		if _, _, err := mldsaKey(c); err != nil {
			return "", err
		}
		return algorithmMLDSA, nil
	}
	return "", fmt.Errorf("a key of type %T, want RSA, EC or ML-DSA", c.PublicKey)
}

// verifySigned checks the signature that issuer made over tbs, a certificate
// or CRL whose whole DER is raw. Only SHA-2 and ML-DSA signatures pass.
func verifySigned(issuer *x509.Certificate, algorithm x509.SignatureAlgorithm, raw, tbs, signature []byte) error {
	if _, err := requestAlgorithm(issuer); err != nil {
		return fmt.Errorf("issuer has %w", err)
	}
	if algorithm == x509.UnknownSignatureAlgorithm {
		oid, err := signatureOID(raw)
		if err != nil {
			return err
		}
		scheme, _, err := mldsaKey(issuer)
		if err != nil {
			return err
		}
		if mldsaScheme(oid) != scheme {
			return fmt.Errorf("signature algorithm %v does not fit the issuer's key", oid)
		}
		return verifyMLDSA(issuer, tbs, signature)
	}
	if !isSHA2(algorithm) {
		return fmt.Errorf("signed with %v, want SHA-256 or better", algorithm)
	}
	return issuer.CheckSignature(algorithm, tbs, signature)
}

// strongSignature reports whether the certificate was signed with SHA-2 or
// ML-DSA.
func strongSignature(c *x509.Certificate) bool {
	if c.SignatureAlgorithm != x509.UnknownSignatureAlgorithm {
		return isSHA2(c.SignatureAlgorithm)
	}
	oid, err := signatureOID(c.Raw)
	return err == nil && mldsaScheme(oid) != nil
}

func isSHA2(algorithm x509.SignatureAlgorithm) bool {
	switch algorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return true
	}
	return false
}

// verifyMLDSA checks a pure ML-DSA signature with an empty context.
func verifyMLDSA(c *x509.Certificate, message, signature []byte) error {
	scheme, key, err := mldsaKey(c)
	if err != nil {
		return err
	}
	if len(signature) != scheme.SignatureSize() || !scheme.Verify(key, message, signature, nil) {
		return fmt.Errorf("%s signature does not verify", scheme.Name())
	}
	return nil
}

// mldsaKey parses the subject public key info that crypto/x509 leaves alone.
func mldsaKey(c *x509.Certificate) (sign.Scheme, sign.PublicKey, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil || len(rest) > 0 {
		return nil, nil, errors.New("a public key that does not parse")
	}
	scheme := mldsaScheme(info.Algorithm.Algorithm)
	if scheme == nil {
		return nil, nil, fmt.Errorf("a key of algorithm %v, want RSA, EC or ML-DSA", info.Algorithm.Algorithm)
	}
	if len(info.Algorithm.Parameters.FullBytes) > 0 { // RFC 9881, section 2
		return nil, nil, errors.New("an ML-DSA key with parameters")
	}
	key, err := scheme.UnmarshalBinaryPublicKey(info.Key.RightAlign())
	if err != nil {
		return nil, nil, fmt.Errorf("an ill-formed %s key: %w", scheme.Name(), err)
	}
	return scheme, key, nil
}

// mldsaScheme returns nil for an OID that is not ML-DSA's.
func mldsaScheme(oid asn1.ObjectIdentifier) sign.Scheme {
	switch oid.String() {
	case "2.16.840.1.101.3.4.3.17":
		return mldsa44.Scheme()
	case "2.16.840.1.101.3.4.3.18":
		return mldsa65.Scheme()
	case "2.16.840.1.101.3.4.3.19":
		return mldsa87.Scheme()
	}
	return nil
}

// signatureOID returns the algorithm a certificate or CRL says it was signed
// with; crypto/x509 has checked that its two mentions agree.
func signatureOID(raw []byte) (asn1.ObjectIdentifier, error) {
	var signed struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(raw, &signed); err != nil {
		return nil, fmt.Errorf("parse signature algorithm: %w", err)
	}
	return signed.Algorithm.Algorithm, nil
}
