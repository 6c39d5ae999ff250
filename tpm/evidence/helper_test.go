package evidence_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/tpm/evidence"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// A localCA certifies the EKs of the TPMs that it makes.
type localCA struct{ *tpmtest.EKCA }

func newLocalCA(t *testing.T) *localCA {
	t.Helper()
	return &localCA{tpmtest.NewEKCA(t)}
}

func certificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s is no PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// options trust the CA.
func (ca *localCA) options(t *testing.T) evidence.VerifyOptions {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, ca.Root()))
	return evidence.VerifyOptions{EKRoots: roots, EKIntermediates: []*x509.Certificate{certificate(t, ca.Issuer())}}
}

// newTPM starts a TPM with an EK certificate.
func (ca *localCA) newTPM(t *testing.T) transport.TPM {
	t.Helper()
	tpm := ca.Start(t)
	checkLeaks(t, tpm)
	return tpm
}

// checkLeaks asserts, when the test ends, that the TPM holds nothing.
func checkLeaks(t *testing.T, tpm transport.TPM) {
	t.Cleanup(func() {
		for what, first := range map[string]uint32{"objects": 0x80000000, "sessions": 0x02000000, "saved sessions": 0x03000000} {
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 32}.Execute(tpm)
			if err != nil {
				t.Error(err)
				continue
			}
			if list, err := rsp.CapabilityData.Data.Handles(); err != nil || len(list.Handle) != 0 {
				t.Errorf("%s left in the TPM: %v, %v", what, list, err)
			}
		}
	})
}

func flush(t *testing.T, tpm transport.TPM, h tpm2.TPMHandle) {
	t.Helper()
	if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(tpm); err != nil {
		t.Error(err)
	}
}

// A tpmKey signs in the TPM, loaded until unload.
type tpmKey struct {
	t    *testing.T
	tpm  transport.TPM
	key  tpm2.NamedHandle
	auth string
	pub  crypto.PublicKey
}

func (k *tpmKey) Public() crypto.PublicKey { return k.pub }

func (k *tpmKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return k.signWith(tpm2.PasswordAuth([]byte(k.auth)), digest)
}

func (k *tpmKey) signWith(session tpm2.Session, digest []byte) ([]byte, error) {
	rsp, err := tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: k.key.Handle, Name: k.key.Name, Auth: session},
		Digest:    tpm2.TPM2BDigest{Buffer: digest},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(k.tpm)
	if err != nil {
		return nil, err
	}
	sig, err := rsp.Signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)})
}

func (k *tpmKey) unload() { flush(k.t, k.tpm, k.key.Handle) }

func (k *tpmKey) evidence() evidence.Key {
	return evidence.Key{Handle: k.key.Handle, Auth: tpm2.PasswordAuth([]byte(k.auth))}
}

func signing() tpm2.TPMAObject {
	return tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true}
}

func template(a tpm2.TPMAObject) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: a,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	}
}

func createSRK(t *testing.T, tpm transport.TPM) *tpm2.CreatePrimaryResponse {
	t.Helper()
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return srk
}

// load loads what Create or Import returned.
func load(t *testing.T, tpm transport.TPM, srk *tpm2.CreatePrimaryResponse, pub tpm2.TPM2BPublic, priv tpm2.TPM2BPrivate, auth string) *tpmKey {
	t.Helper()
	loaded, err := tpm2.Load{ParentHandle: tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name}, InPrivate: priv, InPublic: pub}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return &tpmKey{t, tpm, tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, auth, public(t, pub)}
}

func public(t *testing.T, pub tpm2.TPM2BPublic) crypto.PublicKey {
	t.Helper()
	contents, err := pub.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*contents)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newKey(t *testing.T, tpm transport.TPM, a tpm2.TPMAObject, auth string) *tpmKey {
	t.Helper()
	return newKeyOf(t, tpm, template(a), auth)
}

func newKeyOf(t *testing.T, tpm transport.TPM, pub tpm2.TPMTPublic, auth string) *tpmKey {
	t.Helper()
	srk := createSRK(t, tpm)
	defer flush(t, tpm, srk.ObjectHandle)
	made, err := tpm2.Create{
		ParentHandle: tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(auth)}}},
		InPublic:     tpm2.New2B(pub),
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, tpm, srk, made.OutPublic, made.OutPrivate, auth)
}

func request(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "device"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func collect(t *testing.T, tpm transport.TPM, key evidence.Key, csr []byte, o evidence.Options) *evidence.Bundle {
	t.Helper()
	b, err := evidence.CollectUnchecked(context.Background(), tpm, key, csr, o)
	if err != nil {
		t.Fatal(err)
	}
	return copyOf(t, b)
}

// copyOf sends a bundle through its JSON.
func copyOf(t *testing.T, b *evidence.Bundle) *evidence.Bundle {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := evidence.ParseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Marshal()
	if err != nil || !bytes.Equal(again, data) {
		t.Fatalf("another bundle after parsing: %v", err)
	}
	return got
}
