package software

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// Bounds on RSA keys: below the first no one should trust one, above the last
// reading one takes too long.
const (
	minRSA = 2048
	maxRSA = 16384
)

// isPrivateKey reports whether plain has the outline of a PKCS#1, SEC 1 or
// PKCS#8 key, which all begin with a small version and go on each in its own
// way. What a wrong passphrase leaves does not.
func isPrivateKey(plain []byte) bool {
	s := cryptobyte.String(plain)
	var in cryptobyte.String
	var version int
	return s.ReadASN1(&in, der.SEQUENCE) && s.Empty() &&
		in.ReadASN1Integer(&version) && (version == 0 || version == 1) &&
		(in.PeekASN1Tag(der.SEQUENCE) || in.PeekASN1Tag(der.INTEGER) || in.PeekASN1Tag(der.OCTET_STRING))
}

// parsePrivateKey reads a DER key, whichever of the three formats it has: PEM
// labels are often wrong about it.
func parsePrivateKey(data []byte) (crypto.Signer, error) {
	s := cryptobyte.String(data)
	var in cryptobyte.String
	if !s.ReadASN1(&in, der.SEQUENCE) {
		return nil, malformed("%s", whyNoElement(data))
	}
	if !s.Empty() {
		return nil, malformed("%d bytes too many after the key", len(s))
	}
	if in.PeekASN1Tag(der.SEQUENCE) {
		return nil, malformed("not a private key, or an encrypted one that is not labelled so")
	}
	var version int
	if !in.ReadASN1Integer(&version) {
		return nil, malformed("not a private key")
	}
	switch {
	case in.PeekASN1Tag(der.SEQUENCE):
		return parsePKCS8(data, in)
	case in.PeekASN1Tag(der.INTEGER):
		return parsePKCS1(data, in)
	case in.PeekASN1Tag(der.OCTET_STRING):
		return parseSEC1(data, in)
	}
	return nil, malformed("not a private key")
}

// parsePKCS8 reads a OneAsymmetricKey (RFC 5958); in is what follows its
// version.
func parsePKCS8(data []byte, in cryptobyte.String) (crypto.Signer, error) {
	alg, ok := readAlgorithm(&in)
	var inner cryptobyte.String
	if !ok || !in.ReadASN1(&inner, der.OCTET_STRING) {
		return nil, malformed("not a PKCS#8 key")
	}
	switch oid := alg.oid.String(); oid {
	case "1.2.840.113549.1.1.1":
		return parseInnerPKCS1(inner)
	case "1.2.840.10045.2.1":
		if err := checkCurve(alg.params); err != nil {
			return nil, err
		}
		key, err := x509.ParsePKCS8PrivateKey(data)
		if err != nil {
			return nil, malformed("EC key: %s", reason(err))
		}
		ec, ok := key.(*ecdsa.PrivateKey)
		if !ok {
			return nil, malformed("EC key: not one")
		}
		return ec, checkHalves(ec, inner)
	case "1.3.101.112":
		return nil, signer.CheckSupported(ed25519.PublicKey{})
	default:
		if scheme := signer.MLDSAScheme(alg.oid); scheme != nil {
			return parseMLDSA(scheme, inner)
		}
		return nil, unsupported("%s", algorithmName(oid))
	}
}

// parseInnerPKCS1 reads the PKCS#1 key within a PKCS#8 one.
func parseInnerPKCS1(inner []byte) (crypto.Signer, error) {
	s := cryptobyte.String(inner)
	var in cryptobyte.String
	var version int
	if !s.ReadASN1(&in, der.SEQUENCE) || !s.Empty() || !in.ReadASN1Integer(&version) {
		return nil, malformed("not an RSA key within PKCS#8")
	}
	return parsePKCS1(inner, in)
}

// parsePKCS1 reads an RSAPrivateKey (RFC 8017); in is what follows its version.
func parsePKCS1(data []byte, in cryptobyte.String) (crypto.Signer, error) {
	n := new(big.Int)
	if !in.ReadASN1Integer(n) {
		return nil, malformed("RSA key: no modulus")
	}
	switch bits := n.BitLen(); {
	case bits < minRSA:
		return nil, signer.WithHint(unsupported("RSA-%d is too short: %d bits are the least", bits, minRSA),
			"make a new key: RSA of 2048 bits or more, EC P-256 or ML-DSA")
	case bits > maxRSA:
		return nil, unsupported("RSA-%d is too long: %d bits are the most", bits, maxRSA)
	}
	key, err := x509.ParsePKCS1PrivateKey(data)
	if err != nil {
		// A DSA key looks like this too: its second number is the prime p.
		return nil, malformed("RSA key: %s", reason(err))
	}
	return key, nil
}

// parseSEC1 reads an ECPrivateKey (RFC 5915) that stands alone; in is what
// follows its version.
func parseSEC1(data []byte, in cryptobyte.String) (crypto.Signer, error) {
	var params cryptobyte.String
	var present bool
	if !in.SkipASN1(der.OCTET_STRING) || !in.ReadOptionalASN1(&params, &present, der.Tag(0).Constructed().ContextSpecific()) {
		return nil, malformed("not an EC key")
	}
	if !present {
		return nil, malformed("EC key: it names no curve")
	}
	if err := checkCurve(params); err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(data)
	if err != nil {
		return nil, malformed("EC key: %s", reason(err))
	}
	return key, checkHalves(key, data)
}

// checkCurve takes EC parameters (RFC 5480).
func checkCurve(params cryptobyte.String) error {
	if params.PeekASN1Tag(der.SEQUENCE) {
		return signer.WithHint(unsupported("an EC key with explicit curve parameters"),
			"name its curve: openssl ec -param_enc named_curve -in OLD -out NEW")
	}
	var oid asn1.ObjectIdentifier
	if !params.ReadASN1ObjectIdentifier(&oid) {
		return malformed("EC key: it names no curve")
	}
	name := oid.String()
	switch name {
	case "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35":
		return nil
	case "1.3.132.0.33":
		name = "P-224"
	case "1.2.840.10045.3.1.1":
		name = "P-192"
	case "1.3.132.0.10":
		name = "secp256k1"
	case "1.3.36.3.3.2.8.1.1.7":
		name = "brainpoolP256r1"
	case "1.3.36.3.3.2.8.1.1.11":
		name = "brainpoolP384r1"
	case "1.3.36.3.3.2.8.1.1.13":
		name = "brainpoolP512r1"
	}
	return signer.WithHint(unsupported("EC on the curve %s", name), "use an EC key on P-256, P-384 or P-521")
}

// checkHalves finds damage that the private half alone does not show: the
// public half that lies beside it in the ECPrivateKey must belong to it.
func checkHalves(key *ecdsa.PrivateKey, sec1 cryptobyte.String) error {
	var in, point cryptobyte.String
	var present bool
	if !sec1.ReadASN1(&in, der.SEQUENCE) || !in.SkipASN1(der.INTEGER) || !in.SkipASN1(der.OCTET_STRING) ||
		!in.SkipOptionalASN1(der.Tag(0).Constructed().ContextSpecific()) ||
		!in.ReadOptionalASN1(&point, &present, der.Tag(1).Constructed().ContextSpecific()) {
		return malformed("EC key: its fields")
	}
	if !present {
		return nil
	}
	var stored asn1.BitString
	own, err := key.PublicKey.Bytes()
	if err != nil || !point.ReadASN1BitString(&stored) {
		return malformed("EC key: its public half")
	}
	if len(stored.Bytes) == len(own) && !bytes.Equal(stored.Bytes, own) {
		return malformed("EC key: its public half belongs to another private one")
	}
	return nil
}

func algorithmName(oid string) string {
	switch oid {
	case "1.2.840.113549.1.1.10":
		return "an RSA key for PSS alone: IAM Roles Anywhere takes PKCS#1 v1.5"
	case "1.2.840.10040.4.1":
		return "DSA"
	case "1.2.840.113549.1.3.1", "1.2.840.10046.2.1":
		return "Diffie-Hellman, which cannot sign"
	case "1.3.101.110":
		return "X25519, which cannot sign"
	case "1.3.101.111":
		return "X448, which cannot sign"
	case "1.3.101.113":
		return "Ed448: IAM Roles Anywhere has no signing algorithm for it"
	}
	return fmt.Sprintf("algorithm %s", oid)
}

// reason is the text of an error of crypto/x509, which no one should parse.
func reason(err error) string {
	return strings.TrimPrefix(oneLine(err.Error()), "x509: ")
}
