package rolesanywheretest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	circl "github.com/cloudflare/circl/sign"
)

// key is a private key, seen as what certificates and requests need of it.
type key struct {
	algorithm string                   // of a request
	signer    pkix.AlgorithmIdentifier // of a certificate
	public    []byte                   // subject public key info
	sign      func(message []byte) []byte
}

func newKey(t *testing.T, kind string) key {
	t.Helper()
	switch kind {
	case "RSA-2048":
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		check(t, err)
		return signerKey(t, private, "AWS4-X509-RSA-SHA256", pkix.AlgorithmIdentifier{
			Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue,
		})
	case "RSA-1024": // a modulus is enough: no signature of it is ever looked at
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 1023))
		check(t, err)
		n.SetBit(n, 1023, 1).SetBit(n, 0, 1)
		public, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: 65537})
		check(t, err)
		return key{algorithm: "AWS4-X509-RSA-SHA256", public: public, sign: func([]byte) []byte { return make([]byte, 128) }}
	case "Ed25519":
		public, private, err := ed25519.GenerateKey(rand.Reader)
		check(t, err)
		info, err := x509.MarshalPKIXPublicKey(public)
		check(t, err)
		return key{
			algorithm: "AWS4-X509-ECDSA-SHA256", public: info,
			signer: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}},
			sign:   func(message []byte) []byte { return ed25519.Sign(private, message) },
		}
	case "ML-DSA-44":
		return mldsaKey(t, mldsa44.Scheme(), 17)
	case "ML-DSA-65":
		return mldsaKey(t, mldsa65.Scheme(), 18)
	case "ML-DSA-87":
		return mldsaKey(t, mldsa87.Scheme(), 19)
	}
	curves := map[string]elliptic.Curve{"P-224": elliptic.P224(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	private, err := ecdsa.GenerateKey(curves[kind], rand.Reader)
	check(t, err)
	return signerKey(t, private, "AWS4-X509-ECDSA-SHA256", pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}})
}

func signerKey(t *testing.T, private crypto.Signer, algorithm string, signer pkix.AlgorithmIdentifier) key {
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	check(t, err)
	return key{algorithm, signer, public, func(message []byte) []byte {
		digest := sha256.Sum256(message)
		signature, err := private.Sign(rand.Reader, digest[:], crypto.SHA256)
		check(t, err)
		return signature
	}}
}

func mldsaKey(t *testing.T, scheme circl.Scheme, arc int) key {
	public, private, err := scheme.GenerateKey()
	check(t, err)
	raw, err := public.MarshalBinary()
	check(t, err)
	id := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, arc}}
	info, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{id, asn1.BitString{Bytes: raw, BitLength: 8 * len(raw)}})
	check(t, err)
	return key{"AWS4-X509-MLDSA", id, info, func(message []byte) []byte { return scheme.Sign(private, message, nil) }}
}

type tbsCertificate struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     *big.Int
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   asn1.RawValue
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Extensions []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

type signed struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// authority is a certificate with its key, of a CA or of a leaf.
type authority struct {
	*x509.Certificate
	key
}

// issue has parent certify public, which crypto/x509 can't for every kind of
// key; edits change the certificate before it is signed. A nil parent makes
// it self-signed.
func issue(t *testing.T, parent *authority, subject key, template *x509.Certificate, edits ...func(*tbsCertificate)) authority {
	t.Helper()
	throwaway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	issuer, issuerKey := template, subject
	if parent != nil {
		issuer, issuerKey = &x509.Certificate{RawSubject: parent.RawSubject}, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, throwaway.Public(), throwaway)
	check(t, err)
	var outer signed
	var tbs tbsCertificate
	unmarshal(t, der, &outer)
	unmarshal(t, outer.TBS.FullBytes, &tbs)
	tbs.PublicKey = asn1.RawValue{FullBytes: subject.public}
	tbs.Algorithm = issuerKey.signer
	for _, edit := range edits {
		edit(&tbs)
	}
	certificate, err := x509.ParseCertificate(seal(t, tbs, tbs.Algorithm, issuerKey))
	check(t, err)
	return authority{certificate, subject}
}

// seal signs a to-be-signed structure, of a certificate or a CRL.
func seal(t *testing.T, tbs any, algorithm pkix.AlgorithmIdentifier, by key) []byte {
	t.Helper()
	raw, ok := tbs.([]byte)
	if !ok {
		raw = marshal(t, tbs)
	}
	signature := by.sign(raw)
	return marshal(t, signed{asn1.RawValue{FullBytes: raw}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
}

func newSerial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err)
	}
	return n.SetBit(n, 127, 1) // of a fixed length: the top bit and a zero byte before it
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Example"}},
		NotBefore:             noon.Add(-24 * time.Hour),
		NotAfter:              noon.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

func leafTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: name, OrganizationalUnit: []string{"Plant"}},
		NotBefore:    noon.Add(-time.Hour),
		NotAfter:     noon.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func newCA(t *testing.T, kind, name string) authority {
	t.Helper()
	return issue(t, nil, newKey(t, kind), caTemplate(name))
}

func newLeaf(t *testing.T, ca authority, kind, name string) authority {
	t.Helper()
	return issue(t, &ca, newKey(t, kind), leafTemplate(name))
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	der, err := asn1.Marshal(value)
	check(t, err)
	return der
}

func unmarshal(t *testing.T, der []byte, value any) {
	t.Helper()
	rest, err := asn1.Unmarshal(der, value)
	check(t, err)
	if len(rest) > 0 {
		t.Fatalf("%d trailing bytes", len(rest))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
