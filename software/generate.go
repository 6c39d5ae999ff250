package software

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// Algorithms returns the names that [Generate] lists and documents.
func Algorithms() []string {
	return []string{
		"ec-p256", "ec-p384", "ec-p521",
		"rsa-2048", "rsa-3072", "rsa-4096",
		"ml-dsa-44", "ml-dsa-65", "ml-dsa-87",
	}
}

// Generate makes a key. The algorithm is one of [Algorithms], in any case and
// punctuation, or a usual name of the same, such as "P-256", "prime256v1",
// "ECDSA_P256", "secp384r1" or "mldsa65". Others are an error that wraps
// signer.ErrUnsupportedKey.
func Generate(algorithm string) (crypto.Signer, error) {
	switch name := strings.NewReplacer("-", "", "_", "", ":", "", " ", "").Replace(strings.ToLower(algorithm)); name {
	case "ecp256", "p256", "ecdsap256", "eccp256", "nistp256", "ecnistp256", "prime256v1", "secp256r1":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecp384", "p384", "ecdsap384", "eccp384", "nistp384", "ecnistp384", "secp384r1":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecp521", "p521", "ecdsap521", "eccp521", "nistp521", "ecnistp521", "secp521r1":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "rsa4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "mldsa44":
		return generateMLDSA(17)
	case "mldsa65":
		return generateMLDSA(18)
	case "mldsa87":
		return generateMLDSA(19)
	case "ed25519":
		return nil, signer.CheckSupported(ed25519.PublicKey{})
	}
	return nil, unsupported("%q is none of %s", algorithm, strings.Join(Algorithms(), ", "))
}

// generateMLDSA takes the last arc of the object identifier (RFC 9881).
func generateMLDSA(arc int) (crypto.Signer, error) {
	scheme := signer.MLDSAScheme(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, arc})
	_, key, err := scheme.GenerateKey()
	if err != nil {
		return nil, err
	}
	return mldsaSigner(scheme, key)
}
