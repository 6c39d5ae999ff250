package rolesanywheretest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

func TestPaths(t *testing.T) {
	t.Parallel()
	const untrusted = "403 AccessDeniedException: Untrusted signing certificate"
	for _, test := range []struct {
		name         string
		kind         string
		intermediate func(*x509.Certificate)
		issuing      func(*x509.Certificate)
		reason       string // of the refusal, or ""
	}{
		{"good", "P-256", nil, nil, ""},
		{"ML-DSA", "ML-DSA-44", nil, nil, ""},
		{"path length kept", "P-256", func(c *x509.Certificate) { c.MaxPathLen = 1 }, func(c *x509.Certificate) { c.MaxPathLenZero = true }, ""},
		{"path length exceeded", "P-256", func(c *x509.Certificate) { c.MaxPathLenZero = true }, nil, "path length 0"},
		{"no CA", "P-256", nil, func(c *x509.Certificate) { c.IsCA = false }, "is no CA"},
		{"no basic constraints", "P-256", nil, func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "is no CA"},
		{"no keyCertSign", "P-256", nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, "keyCertSign"},
		{"expired", "P-256", nil, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }, "expired"},
		{"ML-DSA expired", "ML-DSA-44", nil, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }, "expired"},
		{"not yet valid", "P-256", func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) }, nil, "not valid before"},
		{"name constraint", "P-256", nil, func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.org"}
		}, "not permitted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := worldOf(t, test.kind, "P-256")
			template1, template2 := caTemplate("Intermediate"), caTemplate("Issuing")
			for template, change := range map[*x509.Certificate]func(*x509.Certificate){template1: test.intermediate, template2: test.issuing} {
				if change != nil {
					change(template)
				}
			}
			intermediate := issue(t, &w.ca, newKey(t, test.kind), template1)
			issuing := issue(t, &intermediate, newKey(t, test.kind), template2)
			template := leafTemplate("deep")
			template.DNSNames = []string{"deep.example.com"}
			leaf := issue(t, &issuing, newKey(t, "P-256"), template)
			stranger := newCA(t, "P-256", "Issuing") // the right name, the wrong key

			for name, chain := range map[string][]*x509.Certificate{
				"in order":                    {issuing.Certificate, intermediate.Certificate},
				"out of order":                {intermediate.Certificate, issuing.Certificate},
				"with leaf, junk and anchor":  {leaf.Certificate, stranger.Certificate, intermediate.Certificate, issuing.Certificate, w.ca.Certificate},
				"with a certificate repeated": {issuing.Certificate, issuing.Certificate, intermediate.Certificate},
			} {
				got := answerOf(w.do(t, w.callBy(leaf, chain...)))
				if test.reason == "" && got != "201" {
					t.Errorf("%s: %s (%s)", name, got, w.last().Reason)
				}
				if test.reason != "" && (got != untrusted || !strings.Contains(w.last().Reason, test.reason)) {
					t.Errorf("%s: %s (%s), want %s (…%s…)", name, got, w.last().Reason, untrusted, test.reason)
				}
			}
			if got := answerOf(w.do(t, w.callBy(leaf, issuing.Certificate))); got != untrusted {
				t.Errorf("without the intermediate: %s", got)
			}
		})
	}
}

func TestSignaturesOfCertificates(t *testing.T) {
	t.Parallel()
	mldsa65 := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 18}
	for _, test := range []struct {
		name, kind   string
		intermediate func(*tbsCertificate) // its signature's algorithm, or its key
		sha1         bool
		reason       string
	}{
		{"SHA-1", "P-256", func(c *tbsCertificate) { c.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1} }, true, "SHA-256 or better"},
		{"ML-DSA of another size", "ML-DSA-44", func(c *tbsCertificate) { c.Algorithm.Algorithm = mldsa65 }, false, "does not fit"},
		{"ML-DSA signature by an EC key", "P-256", func(c *tbsCertificate) { c.Algorithm.Algorithm = mldsa65 }, false, "want RSA, EC or ML-DSA"},
		{"EC signature by an ML-DSA key", "ML-DSA-44", func(c *tbsCertificate) { c.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2} }, false, "did not sign"},
		{"ML-DSA key with parameters", "ML-DSA-44", func(c *tbsCertificate) {
			var info struct {
				Algorithm pkix.AlgorithmIdentifier
				Key       asn1.BitString
			}
			unmarshal(t, c.PublicKey.FullBytes, &info)
			info.Algorithm.Parameters = asn1.NullRawValue
			c.PublicKey.FullBytes = marshal(t, info)
		}, false, "with parameters"},
	} {
		w := worldOf(t, test.kind, "P-256")
		if test.sha1 {
			private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			check(t, err)
			w.ca = issue(t, nil, signerKey(t, private, "", pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}), caTemplate("Old"))
			check(t, w.UpdateTrustAnchor(w.anchor, func(a *rolesanywheretest.TrustAnchor) { a.Certificates[0] = w.ca.Certificate }))
			w.ca.sign = func(message []byte) []byte {
				digest := sha1.Sum(message)
				signature, err := ecdsa.SignASN1(rand.Reader, private, digest[:])
				check(t, err)
				return signature
			}
		}
		intermediate := issue(t, &w.ca, newKey(t, test.kind), caTemplate("Intermediate"), test.intermediate)
		leaf := newLeaf(t, intermediate, "P-256", "deep")
		if got := answerOf(w.do(t, w.callBy(leaf, intermediate.Certificate))); got != "403 AccessDeniedException: Untrusted signing certificate" || !strings.Contains(w.last().Reason, test.reason) {
			t.Errorf("%s: %s (%s), want …%s…", test.name, got, w.last().Reason, test.reason)
		}
	}
}

func TestAnchorExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	template := caTemplate("Short")
	template.NotAfter = noon.Add(-time.Second)
	ca := issue(t, nil, newKey(t, "P-256"), template)
	check(t, w.UpdateTrustAnchor(w.anchor, func(a *rolesanywheretest.TrustAnchor) {
		a.Certificates = append(a.Certificates, ca.Certificate)
	}))
	wantCreated(t, w, w.do(t, w.call())) // the other certificate still stands
	if got := answerOf(w.do(t, w.callBy(newLeaf(t, ca, "P-256", "x")))); got != "403 AccessDeniedException: Untrusted signing certificate" {
		t.Errorf("under an expired anchor: %s", got)
	}
}

func TestDisableAndEnable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	check(t, w.DisableTrustAnchor(w.anchor))
	check(t, w.DisableProfile(w.profile))
	if got := w.do(t, w.call()).status; got != 403 {
		t.Errorf("status %d while disabled", got)
	}
	check(t, w.EnableTrustAnchor(w.anchor))
	check(t, w.EnableProfile(w.profile))
	wantCreated(t, w, w.do(t, w.call()))
	for _, err := range []error{w.EnableTrustAnchor("x"), w.EnableProfile("x"), w.UpdateRole("x", nil), w.ImportCRL("x", nil)} {
		if err == nil {
			t.Error("an unknown ARN made no error")
		}
	}
}

func TestAddTrustAnchorRefusals(t *testing.T) {
	t.Parallel()
	good := newCA(t, "P-256", "Good")
	ca := func(kind string, change func(*x509.Certificate)) *x509.Certificate {
		template := caTemplate("Bad")
		change(template)
		return issue(t, nil, newKey(t, kind), template).Certificate
	}
	same := func(*x509.Certificate) {}
	for _, test := range []struct {
		name, arn    string
		certificates []*x509.Certificate
		message      string
	}{
		{"leaf", "", []*x509.Certificate{newLeaf(t, good, "P-256", "leaf").Certificate}, "Incorrect basic constraints for CA certificate"},
		{"no keyCertSign", "", []*x509.Certificate{ca("P-256", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })}, "Incorrect basic constraints for CA certificate"},
		{"none", "", nil, "Invalid certificate bundle"},
		{"three", "", []*x509.Certificate{good.Certificate, good.Certificate, good.Certificate}, "Invalid certificate bundle"},
		{"Ed25519", "", []*x509.Certificate{ca("Ed25519", same)}, "Unsupported key algorithm"},
		{"large", "", []*x509.Certificate{ca("P-256", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 12000)}}
		})}, "1 validation error detected: Value '' at 'source.sourceData.x509CertificateData' failed to satisfy constraint: Member must have length less than or equal to 16000"},
		{"region", "arn:aws:rolesanywhere:eu-west-1:123456789012:trust-anchor/00000000-0000-4000-8000-000000000000", []*x509.Certificate{good.Certificate}, "Invalid ARN"},
		{"ARN", "arn:aws:rolesanywhere:us-east-1:123456789012:trust-anchor/1", []*x509.Certificate{good.Certificate}, "Invalid ARN"},
	} {
		var s rolesanywheretest.Server
		_, err := s.AddTrustAnchor(rolesanywheretest.TrustAnchor{ARN: test.arn, Certificates: test.certificates})
		var refusal *rolesanywheretest.Refusal
		if !errors.As(err, &refusal) || refusal.Message != test.message || refusal.Type != validation {
			t.Errorf("%s: error %v, want %s", test.name, err, test.message)
		}
	}
}

// newCRL lists certificates as revoked, signed by any kind of CA.
func newCRL(t *testing.T, ca authority, number int64, revoked ...*x509.Certificate) []byte {
	t.Helper()
	var entries []x509.RevocationListEntry
	for _, certificate := range revoked {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: certificate.SerialNumber, RevocationTime: noon})
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	issuer := &x509.Certificate{RawSubject: ca.RawSubject, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign, PublicKey: private.Public()}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.Add(time.Hour), RevokedCertificateEntries: entries,
	}, issuer, private)
	check(t, err)
	var outer signed
	unmarshal(t, der, &outer)
	inner := bytes.Replace(outer.TBS.Bytes, marshal(t, outer.Algorithm), marshal(t, ca.signer), 1)
	tbs := marshal(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: inner})
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: seal(t, tbs, ca.signer, ca.key)})
}

func TestCRL(t *testing.T) {
	t.Parallel()
	const revoked = "403 AccessDeniedException: Certificate revoked"
	for _, kind := range []string{"P-256", "RSA-2048", "ML-DSA-65"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := worldOf(t, kind, "P-256")
			intermediate := issue(t, &w.ca, newKey(t, "P-256"), caTemplate("Intermediate"))
			deep := newLeaf(t, intermediate, "P-256", "deep")
			other := newLeaf(t, w.ca, "P-256", "other")

			check(t, w.ImportCRL(w.anchor, newCRL(t, w.ca, 1, other.Certificate)))
			wantCreated(t, w, w.do(t, w.call()))
			wantCreated(t, w, w.do(t, w.callBy(deep, intermediate.Certificate)))
			if got := answerOf(w.do(t, w.callBy(other))); got != revoked {
				t.Errorf("revoked leaf: %s", got)
			}
			check(t, w.ImportCRL(w.anchor, newCRL(t, w.ca, 2, intermediate.Certificate, w.leaf.Certificate)))
			for _, c := range []*call{w.call(), w.callBy(deep, intermediate.Certificate)} {
				if got := answerOf(w.do(t, c)); got != revoked {
					t.Errorf("revoked by the second list: %s", got)
				}
			}
			wantCreated(t, w, w.do(t, w.callBy(other))) // the second list replaced the first
		})
	}
}

func TestImportCRLRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := newCRL(t, w.ca, 1)
	block, _ := pem.Decode(good)
	bent := append([]byte(nil), block.Bytes...)
	bent[len(bent)-1] ^= 1
	noSign := issue(t, nil, newKey(t, "P-256"), func() *x509.Certificate {
		template := caTemplate("No cRLSign")
		template.KeyUsage = x509.KeyUsageCertSign
		return template
	}())
	check(t, w.UpdateTrustAnchor(w.anchor, func(a *rolesanywheretest.TrustAnchor) { a.Certificates = append(a.Certificates, noSign.Certificate) }))
	for _, test := range []struct {
		name   string
		crl    []byte
		reason string
	}{
		{"DER", block.Bytes, "not PEM"},
		{"empty", nil, "not PEM"},
		{"large", bytes.Repeat([]byte("\n"), 300_001), "at most 300000"},
		{"certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.Raw}), "want X509 CRL"},
		{"two", append(append([]byte(nil), good...), good...), "follows"},
		{"ill-formed", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{1}}), "malformed"},
		{"bent", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: bent}), "verification failure"},
		{"other CA", newCRL(t, newCA(t, "P-256", "Other"), 1), "is not the trust anchor"},
		{"other CA of the same name", newCRL(t, newCA(t, "P-256", "Root"), 1), "verification failure"},
		{"no cRLSign", newCRL(t, noSign, 1), "cRLSign"},
	} {
		err := w.ImportCRL(w.anchor, test.crl)
		var refusal *rolesanywheretest.Refusal
		if !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, test.reason) {
			t.Errorf("%s: error %v, want …%s…", test.name, err, test.reason)
		}
	}
	wantCreated(t, w, w.do(t, w.call()))
}
