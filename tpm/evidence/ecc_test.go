package evidence_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/simulator"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

type transportTPM = transport.TPM

// ekCertificate certifies an ECC EK as the TCG's profile has it, but for edits.
func ekCertificate(t *testing.T, tpm transport.TPM, edits ...func(*x509.Certificate)) (root *x509.Certificate, der []byte) {
	t.Helper()
	return ekCertificateFor(t, tpm, tpm2.ECCEKTemplate, edits...)
}

func ekCertificateFor(t *testing.T, tpm transport.TPM, template tpm2.TPMTPublic, edits ...func(*x509.Certificate)) (root *x509.Certificate, der []byte) {
	t.Helper()
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	defer flush(t, tpm, ek.ObjectHandle)
	caKey := softwareKey(t)
	caTemplate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	caDER, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(caDER); err != nil {
		t.Fatal(err)
	}
	name, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 1}, Value: "id:4D534654"}},
		{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 2}, Value: "model"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageKeyAgreement, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san}},
	}
	for _, edit := range edits {
		edit(leaf)
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, public(t, ek.OutPublic), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return root, der
}

func writeNV(t *testing.T, tpm transport.TPM, index tpm2.TPMHandle, data []byte) {
	t.Helper()
	pub := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true}}
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	if _, err := (tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(pub)}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	fillNV(t, tpm, index, data)
}

func fillNV(t *testing.T, tpm transport.TPM, index tpm2.TPMHandle, data []byte) {
	t.Helper()
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(data); at += 500 {
		_, err := tpm2.NVWrite{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: index, Name: rsp.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+500, len(data))]}, Offset: uint16(at)}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		// The Name changes with the first write.
		if rsp, err = (tpm2.NVReadPublic{NVIndex: index}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
	}
}

// On the simulator: an ECC EK, which is in no persistent handle, with a
// certificate that is padded, a chain in NV and an endorsement password.
func TestECC(t *testing.T) {
	tpm, err := simulator.OpenSimulator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tpm.Close() })
	checkLeaks(t, tpm)
	key := newKey(t, tpm, signing(), "sesame")
	defer key.unload()
	csr := request(t, key)
	root, cert := ekCertificate(t, tpm)

	bare, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	options := evidence.VerifyOptions{EKRoots: roots}
	if _, err := evidence.Verify(bare, csr, options); !errors.Is(err, evidence.ErrNoEKCertificate) || signer.Hint(err) == "" {
		t.Errorf("without a certificate: %v", err)
	}
	ek, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	fp, err := evidence.Fingerprint(ek.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Verify(bare, csr, evidence.VerifyOptions{EKs: [][]byte{fp}}); err != nil {
		t.Errorf("with the EK known: %v", err)
	}
	given, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{EKCertificate: cert})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Verify(given, csr, options); err != nil {
		t.Errorf("with the certificate given: %v", err)
	}
	for name, edit := range map[string]func(*x509.Certificate){
		"an old one's, without extended key usage": func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil },
		"for anything": func(c *x509.Certificate) { c.UnknownExtKeyUsage, c.ExtraExtensions = nil, nil },
		"for any extended usage": func(c *x509.Certificate) {
			c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		},
		"without key usage": func(c *x509.Certificate) { c.KeyUsage = 0 },
		"a CA's":            func(c *x509.Certificate) { c.IsCA = true },
		"for a TLS server": func(c *x509.Certificate) {
			c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		},
		"for signatures": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature },
		"with an unknown critical extension": func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		},
	} {
		root, cert := ekCertificate(t, tpm, edit)
		b, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{EKCertificate: cert})
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(root)
		_, err = evidence.Verify(b, csr, evidence.VerifyOptions{EKRoots: roots})
		if strings.HasPrefix(name, "an old one's") {
			if err != nil {
				t.Errorf("a certificate %s: %v", name, err)
			}
		} else if !errors.Is(err, evidence.ErrEKUntrusted) {
			t.Errorf("a certificate %s: %v", name, err)
		}
	}
	_, wrong := ekCertificateOf(t)
	if _, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{EKCertificate: wrong}); !errors.Is(err, evidence.ErrEKMismatch) {
		t.Errorf("with another TPM's certificate: %v", err)
	}

	writeNV(t, tpm, 0x01c0000a, append(bytes.Clone(cert), make([]byte, 200)...))
	writeNV(t, tpm, 0x01c00100, append(bytes.Clone(root.Raw), root.Raw...))
	_, err = tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("endorsement")},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{}); !errors.Is(err, signer.ErrPINIncorrect) || !errors.Is(err, evidence.ErrEndorsementAuth) {
		t.Errorf("without the endorsement password: %v", err)
	}
	o := evidence.Options{Endorsement: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth([]byte("endorsement")))}
	b, err := evidence.Collect(ctx, tpm, key.evidence(), csr, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.EK.Chain) != 2 {
		t.Errorf("a chain of %d", len(b.EK.Chain))
	}
	r, err := evidence.Verify(copyOf(t, b), csr, options)
	if err != nil {
		t.Fatal(err)
	}
	if r.Manufacturer != "id:4D534654" {
		t.Errorf("made by %q", r.Manufacturer)
	}
	challenge, pending, err := evidence.NewChallenge(r)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := evidence.Respond(ctx, tpm, challenge, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := pending.Verify(answer); err != nil {
		t.Error(err)
	}
	options.Time = time.Now().Add(2 * time.Hour)
	if _, err := evidence.Verify(b, csr, options); !errors.Is(err, evidence.ErrEKUntrusted) {
		t.Errorf("after the certificate's end: %v", err)
	}
}

// ekCertificateOf certifies a key of no TPM.
func ekCertificateOf(t *testing.T) (*x509.Certificate, []byte) {
	t.Helper()
	key := softwareKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return template, der
}

// Some makers mark the key as one for RSAES-OAEP.
func TestOAEPCertificate(t *testing.T) {
	data, err := os.ReadFile("testdata/bundle.json")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := os.ReadFile("testdata/request.der")
	if err != nil {
		t.Fatal(err)
	}
	b, err := evidence.ParseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	rsaEncryption, oaep := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7}
	b.EK.Certificate = bytes.Replace(b.EK.Certificate, rsaEncryption, oaep, 1)
	fp, err := hex.DecodeString("91c5f20577df5b74f3bc8053ff6e991a81efda3fc64006782f21963ec87231e5")
	if err != nil {
		t.Fatal(err)
	}
	r, err := evidence.Verify(b, csr, evidence.VerifyOptions{EKs: [][]byte{fp}})
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := x509.ParseCertificate(b.EK.Certificate); err != nil || cert.PublicKey != nil {
		t.Errorf("the certificate is not one that crypto/x509 has no key of: %v", err)
	}
	// A known EK does not vouch for the certificate beside it.
	if r.EKCertificate != nil || r.Manufacturer != "" {
		t.Errorf("an unverified certificate in the result: %+v", r)
	}
	if _, err := evidence.Verify(b, csr, evidence.VerifyOptions{EKRoots: x509.NewCertPool()}); !errors.Is(err, evidence.ErrEKUntrusted) {
		t.Errorf("without a root: %v", err)
	}
}
