package enroll_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
)

// The size of a request's key is its author's to choose; to check the signature
// of a huge one would take its reader a minute or an hour.
func TestHugeKey(t *testing.T) {
	key := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1<<20), big.NewInt(1)), E: 1<<31 - 1}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	type info struct {
		Version    int
		Subject    pkix.RDNSequence
		Key        asn1.RawValue
		Attributes asn1.RawValue
	}
	sig := bytes.Repeat([]byte{1}, key.Size())
	csr, err := asn1.Marshal(struct {
		Info      info
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		info{0, nil, asn1.RawValue{FullBytes: spki}, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true}},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue},
		asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enroll.ParseRequest(csr); !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "too long") {
		t.Error(err)
	}
}
