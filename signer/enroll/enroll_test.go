package enroll_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
)

var keyTypes = []string{"RSA-2048", "RSA-3072", "P-256", "P-384", "P-521", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"}

func newKey(t *testing.T, typ string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch typ {
	case "RSA-1024":
		t.Setenv("GODEBUG", "rsa1024min=0")
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	case "RSA-2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "RSA-3072":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case "P-224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ML-DSA-44":
		_, key, err = mldsa44.GenerateKey(rand.Reader)
	case "ML-DSA-65":
		_, key, err = mldsa65.GenerateKey(rand.Reader)
	case "ML-DSA-87":
		_, key, err = mldsa87.GenerateKey(rand.Reader)
	default:
		t.Fatalf("no key type %s", typ)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func isMLDSA(typ string) bool { return strings.HasPrefix(typ, "ML-DSA") }

func newCA(t *testing.T, typ string, o enroll.CAOptions) *enroll.CA {
	t.Helper()
	if o.Subject.CommonName == "" {
		o.Subject.CommonName = typ + " root"
	}
	ca, err := enroll.NewCA(newKey(t, typ), o)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newRequest(t *testing.T, key crypto.Signer, o enroll.RequestOptions) *x509.CertificateRequest {
	t.Helper()
	der, err := enroll.NewRequest(key, o)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := enroll.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("this test needs openssl: apt-get install openssl")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every kind of key below every kind of CA: request, certificate, chain.
func TestEveryPairOfKeys(t *testing.T) {
	subject := pkix.Name{CommonName: "device-1", OrganizationalUnit: []string{"edge"}, Organization: []string{"Acme"}}
	uri, err := url.Parse("spiffe://acme.example/device-1")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{}
	for _, typ := range keyTypes {
		keys[typ] = newKey(t, typ)
	}
	for _, caType := range keyTypes {
		ca := newCA(t, caType, enroll.CAOptions{})
		for _, leafType := range keyTypes {
			t.Run(leafType+" under "+caType, func(t *testing.T) {
				csr := newRequest(t, keys[leafType], enroll.RequestOptions{
					Subject: subject, DNSNames: []string{"device-1.acme.example"},
					EmailAddresses: []string{"ops@acme.example"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}, URIs: []*url.URL{uri},
				})
				leaf, err := ca.Sign(csr, enroll.LeafOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if err := signer.CheckSignature(leaf, ca.Certificate); err != nil {
					t.Fatalf("CheckSignature: %v", err)
				}
				if err := signer.CheckSignature(ca.Certificate, ca.Certificate); err != nil {
					t.Fatalf("CheckSignature of the root: %v", err)
				}
				if _, err := signer.New(keys[leafType], leaf, nil); err != nil {
					t.Fatal(err)
				}
				checkLeaf(t, leaf, ca.Certificate)
				if leaf.Subject.String() != "CN=device-1,OU=edge,O=Acme" || leaf.DNSNames[0] != "device-1.acme.example" ||
					leaf.URIs[0].String() != uri.String() || leaf.EmailAddresses[0] != "ops@acme.example" || !leaf.IPAddresses[0].Equal(net.IPv4(192, 0, 2, 1)) {
					t.Errorf("names were not copied: %v %v %v %v %v", leaf.Subject, leaf.DNSNames, leaf.URIs, leaf.EmailAddresses, leaf.IPAddresses)
				}
				if !isMLDSA(caType) && !isMLDSA(leafType) {
					dir := t.TempDir()
					root := write(t, dir, "root.pem", enroll.EncodePEM(ca.Certificate))
					openssl(t, "verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslclient", "-CAfile", root, write(t, dir, "leaf.pem", enroll.EncodePEM(leaf)))
				}
				if !isMLDSA(leafType) {
					pemText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})
					openssl(t, "req", "-verify", "-noout", "-in", write(t, t.TempDir(), "csr.pem", pemText))
				}
			})
		}
	}
}

func checkLeaf(t *testing.T, leaf, issuer *x509.Certificate) {
	t.Helper()
	if leaf.Version != 3 || !leaf.BasicConstraintsValid || leaf.IsCA {
		t.Errorf("version %d, basic constraints %t, CA %t", leaf.Version, leaf.BasicConstraintsValid, leaf.IsCA)
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("key usage %v, extended %v", leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	if leaf.SerialNumber.Sign() != 1 || leaf.SerialNumber.BitLen() != 127 {
		t.Errorf("serial number %x", leaf.SerialNumber)
	}
	if len(leaf.SubjectKeyId) != 20 || string(leaf.AuthorityKeyId) != string(issuer.SubjectKeyId) {
		t.Errorf("key ids: subject %x, authority %x, issuer %x", leaf.SubjectKeyId, leaf.AuthorityKeyId, issuer.SubjectKeyId)
	}
	if life := time.Until(leaf.NotAfter); life > enroll.DefaultLeafLifetime || life < enroll.DefaultLeafLifetime-time.Minute {
		t.Errorf("life left: %v", life)
	}
	if ago := time.Since(leaf.NotBefore); ago < 4*time.Minute {
		t.Errorf("NotBefore is only %v ago", ago)
	}
}

func TestOpenSSLReadsTheExtensions(t *testing.T) {
	root := newCA(t, "P-384", enroll.CAOptions{PathLen: new(1)})
	key := newKey(t, "P-256")
	cert, err := root.SignCA(key.Public(), enroll.CAOptions{Subject: pkix.Name{CommonName: "issuing"}, PathLen: new(0)})
	if err != nil {
		t.Fatal(err)
	}
	issuing, err := enroll.LoadCA(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := issuing.Issue(newKey(t, "RSA-2048").Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "leaf"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rootFile := write(t, dir, "root.pem", enroll.EncodePEM(root.Certificate))
	issuingFile := write(t, dir, "issuing.pem", enroll.EncodePEM(cert))
	leafFile := write(t, dir, "leaf.pem", enroll.EncodePEM(leaf))
	openssl(t, "verify", "-x509_strict", "-CAfile", rootFile, "-untrusted", issuingFile, leafFile)

	text := openssl(t, "x509", "-noout", "-text", "-in", rootFile)
	for _, want := range []string{"ecdsa-with-SHA384", "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:1",
		"X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign", "Subject Key Identifier"} {
		if !strings.Contains(text, want) {
			t.Errorf("the root lacks %q:\n%s", want, text)
		}
	}
	text = openssl(t, "x509", "-noout", "-text", "-in", leafFile)
	for _, want := range []string{"ecdsa-with-SHA256", "X509v3 Basic Constraints: critical\n                CA:FALSE",
		"X509v3 Key Usage: critical\n                Digital Signature\n", "TLS Web Client Authentication", "Authority Key Identifier"} {
		if !strings.Contains(text, want) {
			t.Errorf("the leaf lacks %q:\n%s", want, text)
		}
	}

	if _, err := issuing.SignCA(newKey(t, "P-256").Public(), enroll.CAOptions{Subject: pkix.Name{CommonName: "too deep"}}); err == nil {
		t.Error("a CA below pathlen:0 was signed")
	}
	if _, err := root.SignCA(newKey(t, "P-256").Public(), enroll.CAOptions{Subject: pkix.Name{CommonName: "too wide"}, PathLen: new(1)}); err == nil {
		t.Error("pathlen:1 below pathlen:1 was signed")
	}
}

func TestOpenSSLRequestsAreTaken(t *testing.T) {
	dir := t.TempDir()
	key, csrFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "csr.pem")
	openssl(t, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", csrFile,
		"-subj", "/C=DE/O=Ümläut GmbH/CN=x", "-addext", "subjectAltName=DNS:x.example,dirName:dir", "-addext", "basicConstraints=CA:TRUE",
		"-config", write(t, dir, "openssl.cnf", []byte("[req]\ndistinguished_name=dn\nutf8=yes\n[dn]\n[dir]\nCN=other name\n")))
	data, err := os.ReadFile(csrFile)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := enroll.ParseRequest(data)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := newCA(t, "P-256", enroll.CAOptions{}).Sign(csr, enroll.LeafOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if leaf.IsCA || string(leaf.RawSubject) != string(csr.RawSubject) {
		t.Errorf("CA %t, subject %v", leaf.IsCA, leaf.Subject)
	}
	text := openssl(t, "x509", "-noout", "-text", "-in", write(t, dir, "leaf.pem", enroll.EncodePEM(leaf)))
	if !strings.Contains(text, "DNS:x.example") || !strings.Contains(text, "other name") {
		t.Errorf("a directory name was lost:\n%s", text)
	}
}

func TestSignReplacesNames(t *testing.T) {
	ca := newCA(t, "P-256", enroll.CAOptions{})
	csr := newRequest(t, newKey(t, "P-256"), enroll.RequestOptions{Subject: pkix.Name{CommonName: "asked"}, DNSNames: []string{"asked.example"}})
	leaf, err := ca.Sign(csr, enroll.LeafOptions{Subject: pkix.Name{CommonName: "given"}, DNSNames: []string{"given.example"}, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Subject.CommonName != "given" || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "given.example" {
		t.Errorf("got %v %v", leaf.Subject, leaf.DNSNames)
	}
}

func TestNoCertificateOutlivesItsIssuer(t *testing.T) {
	ca := newCA(t, "P-256", enroll.CAOptions{Lifetime: time.Hour})
	leaf, err := ca.Issue(newKey(t, "P-256").Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotAfter.Equal(ca.Certificate.NotAfter) || leaf.NotBefore.Before(ca.Certificate.NotBefore) {
		t.Errorf("leaf %v to %v, CA %v to %v", leaf.NotBefore, leaf.NotAfter, ca.Certificate.NotBefore, ca.Certificate.NotAfter)
	}
	old := newCA(t, "P-256", enroll.CAOptions{NotBefore: time.Now().Add(-2 * time.Hour), Lifetime: 119 * time.Minute})
	if _, err := old.Issue(newKey(t, "P-256").Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "x"}}); err == nil {
		t.Error("an expired CA issued")
	}
}

func TestRefusals(t *testing.T) {
	ca := newCA(t, "P-256", enroll.CAOptions{})
	ok := pkix.Name{CommonName: "x"}
	for _, c := range []struct {
		name, key, want string
		o               enroll.LeafOptions
		is              error
	}{
		{"empty subject", "P-256", "subject is empty", enroll.LeafOptions{}, nil},
		{"long CN", "P-256", "CN has 65 characters", enroll.LeafOptions{Subject: pkix.Name{CommonName: strings.Repeat("é", 65)}}, nil},
		{"country", "P-256", "two letters", enroll.LeafOptions{Subject: pkix.Name{CommonName: "x", Country: []string{"Germany"}}}, nil},
		{"NUL", "P-256", "NUL", enroll.LeafOptions{Subject: pkix.Name{CommonName: "x\x00y"}}, nil},
		{"short RSA", "RSA-1024", "too short", enroll.LeafOptions{Subject: ok}, signer.ErrUnsupportedKey},
		{"P-224", "P-224", "EC P-224", enroll.LeafOptions{Subject: ok}, signer.ErrUnsupportedKey},
		{"empty DNS name", "P-256", "empty DNS name", enroll.LeafOptions{Subject: ok, DNSNames: []string{""}}, nil},
		{"relative URI", "P-256", "without a scheme", enroll.LeafOptions{Subject: ok, URIs: []*url.URL{{Path: "x"}}}, nil},
		{"negative lifetime", "P-256", "no time left", enroll.LeafOptions{Subject: ok, Lifetime: -time.Hour}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.Issue(newKey(t, c.key).Public(), c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := enroll.NewRequest(newKey(t, "P-256"), enroll.RequestOptions{}); err == nil {
		t.Error("a request without a subject was made")
	}
	if _, err := enroll.NewCA(newKey(t, "P-256"), enroll.CAOptions{}); err == nil {
		t.Error("a CA without a subject was made")
	}
}

func TestLoadCA(t *testing.T) {
	ca := newCA(t, "ML-DSA-65", enroll.CAOptions{})
	if _, err := enroll.LoadCA(ca.Certificate, ca.Key); err != nil {
		t.Error(err)
	}
	if _, err := enroll.LoadCA(ca.Certificate, newKey(t, "ML-DSA-65")); !errors.Is(err, signer.ErrKeyMismatch) {
		t.Errorf("foreign key: %v", err)
	}
	key := newKey(t, "P-256")
	leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enroll.LoadCA(leaf, key); err == nil {
		t.Error("a leaf was taken for a CA")
	}
}

// A faulty token's signature must not leave the package.
type faulty struct{ crypto.Signer }

func (f faulty) SignMessage(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	sig, err := crypto.SignMessage(f.Signer, r, append([]byte{0}, msg...), o)
	return sig, err
}

func TestFaultySignature(t *testing.T) {
	key := faulty{newKey(t, "P-256")}
	if _, err := enroll.NewCA(key, enroll.CAOptions{Subject: pkix.Name{CommonName: "x"}}); err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("got %v", err)
	}
	if _, err := enroll.NewRequest(key, enroll.RequestOptions{Subject: pkix.Name{CommonName: "x"}}); err == nil {
		t.Error("a request with a bad signature was made")
	}
}

func TestParseRequestErrors(t *testing.T) {
	for _, typ := range []string{"P-256", "RSA-2048", "ML-DSA-44"} {
		der, err := enroll.NewRequest(newKey(t, typ), enroll.RequestOptions{Subject: pkix.Name{CommonName: "x"}})
		if err != nil {
			t.Fatal(err)
		}
		tampered := append([]byte(nil), der...)
		tampered[len(tampered)-5] ^= 1
		cert := enroll.EncodePEM(newCA(t, "P-256", enroll.CAOptions{}).Certificate)
		for name, c := range map[string]struct {
			data []byte
			want string
		}{
			"tampered":  {tampered, "signature is not its key's"},
			"cut short": {der[:len(der)/2], "malformed"},
			"empty":     {nil, "nothing in it"},
			"text":      {[]byte("hello"), "malformed"},
			"other PEM": {cert, `a PEM block "CERTIFICATE"`},
			"broken":    {[]byte("-----BEGIN CERTIFICATE REQUEST-----\nxx"), "damaged"},
		} {
			_, err := enroll.ParseRequest(c.data)
			if !errors.Is(err, signer.ErrMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: got %v, want %q", typ, name, err, c.want)
			}
		}
		text := append([]byte("Certificate Request:\n  Data:\n"), pem.EncodeToMemory(&pem.Block{Type: "NEW CERTIFICATE REQUEST", Bytes: der})...)
		if _, err := enroll.ParseRequest(text); err != nil {
			t.Error(err)
		}
	}
}

func TestCRL(t *testing.T) {
	for _, typ := range []string{"P-521", "RSA-2048", "ML-DSA-87"} {
		t.Run(typ, func(t *testing.T) {
			ca := newCA(t, typ, enroll.CAOptions{})
			key := newKey(t, "P-256").Public()
			var leaves []*x509.Certificate
			for _, cn := range []string{"good", "bad"} {
				leaf, err := ca.Issue(key, enroll.LeafOptions{Subject: pkix.Name{CommonName: cn}})
				if err != nil {
					t.Fatal(err)
				}
				leaves = append(leaves, leaf)
			}
			der, err := ca.CRL(enroll.Revoked(leaves[1]), 0)
			if err != nil {
				t.Fatal(err)
			}
			crl, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			if len(crl.RevokedCertificateEntries) != 1 || crl.RevokedCertificateEntries[0].SerialNumber.Cmp(leaves[1].SerialNumber) != 0 {
				t.Errorf("revoked: %v", crl.RevokedCertificateEntries)
			}
			if string(crl.AuthorityKeyId) != string(ca.Certificate.SubjectKeyId) {
				t.Error("authority key id")
			}
			if isMLDSA(typ) {
				if err := signer.Verify(ca.Key.Public(), crl.RawTBSRevocationList, crl.Signature, crypto.Hash(0)); err != nil {
					t.Error(err)
				}
				return
			}
			if err := crl.CheckSignatureFrom(ca.Certificate); err != nil {
				t.Error(err)
			}
			dir := t.TempDir()
			args := []string{"verify", "-crl_check", "-CAfile", write(t, dir, "root.pem", enroll.EncodePEM(ca.Certificate)),
				"-CRLfile", write(t, dir, "crl.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))}
			openssl(t, append(args, write(t, dir, "good.pem", enroll.EncodePEM(leaves[0])))...)
			out, err := exec.Command("openssl", append(args, write(t, dir, "bad.pem", enroll.EncodePEM(leaves[1])))...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "certificate revoked") {
				t.Errorf("the revoked certificate: %v\n%s", err, out)
			}
		})
	}
}
