package evidence_test

import (
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

func FuzzParseBundle(f *testing.F) {
	good, err := os.ReadFile("testdata/bundle.json")
	if err != nil {
		f.Fatal(err)
	}
	csr, err := os.ReadFile("testdata/request.der")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"key":{"attest":"/1RDRw=="}}`))
	b, err := evidence.ParseBundle(good)
	if err != nil {
		f.Fatal(err)
	}
	ek, err := x509.ParseCertificate(b.EK.Certificate)
	if err != nil {
		f.Fatal(err)
	}
	fp, err := evidence.Fingerprint(ek.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	known := evidence.VerifyOptions{EKs: [][]byte{fp}}
	if _, err := evidence.Verify(b, csr, known); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := evidence.ParseBundle(data)
		if err != nil {
			if !errors.Is(err, signer.ErrMalformed) && !errors.Is(err, evidence.ErrVersion) {
				t.Errorf("unexpected error %v", err)
			}
			return
		}
		_, err = evidence.Verify(b, csr, evidence.VerifyOptions{})
		if err == nil {
			t.Error("verified without roots")
		} else if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("error of several lines: %q", err)
		}
		// And past the EK, with the one of the good bundle known.
		_, _ = evidence.Verify(b, csr, known)
		if _, err := b.Marshal(); err != nil {
			t.Error(err)
		}
	})
}
