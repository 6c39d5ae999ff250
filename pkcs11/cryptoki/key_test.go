//go:build cgo

package cryptoki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

func TestEveryKeyType(t *testing.T) {
	names := map[string]string{
		"ec-p256": "EC P-256", "ec-p384": "EC P-384", "ec-p521": "EC P-521",
		"rsa-2048": "RSA-2048", "rsa-3072": "RSA-3072", "rsa-4096": "RSA-4096",
	}
	newHSM(t, "types")
	m := load(t)
	for _, algorithm := range cryptoki.Algorithms() {
		t.Run(algorithm, func(t *testing.T) {
			k := generate(t, m, "pkcs11:token=types;object="+algorithm, algorithm, options(nil))
			if got := signer.DescribeKey(k.Public()); got != names[algorithm] {
				t.Errorf("made %s", got)
			}
			checkSigns(t, k)
			if pub, ok := k.Public().(*rsa.PublicKey); ok {
				checkPSS(t, k, pub)
			}
			sig, err := k.SignMessage(rand.Reader, []byte("message"), crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if err := signer.Verify(k.Public(), []byte("message"), sig, crypto.SHA256); err != nil {
				t.Error(err)
			}
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, k)
			if err != nil {
				t.Fatal(err)
			}
			csr, err := x509.ParseCertificateRequest(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := csr.CheckSignature(); err != nil {
				t.Error(err)
			}
			issue(t, k, algorithm)
		})
	}
}

func checkPSS(t *testing.T, k *cryptoki.Key, pub *rsa.PublicKey) {
	digest := sha256.Sum256([]byte("x"))
	for _, salt := range []int{rsa.PSSSaltLengthAuto, rsa.PSSSaltLengthEqualsHash, 0, 20} {
		o := &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		if salt == 0 {
			o.SaltLength = 1 // 0 is "auto"
		}
		sig, err := k.Sign(rand.Reader, digest[:], o)
		if err != nil {
			t.Fatal(err)
		}
		if err := rsa.VerifyPSS(pub, crypto.SHA256, digest[:], sig, o); err != nil {
			t.Errorf("salt %d: %v", o.SaltLength, err)
		}
	}
	if _, err := k.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: 1000, Hash: crypto.SHA256}); err == nil {
		t.Error("a salt longer than the key was taken")
	}
}

func TestWrongDigest(t *testing.T) {
	newHSM(t, "digest")
	k := generate(t, load(t), "pkcs11:token=digest;object=k", "rsa-2048", options(nil))
	if _, err := k.Sign(rand.Reader, []byte("short"), crypto.SHA256); err == nil {
		t.Error("signed a digest of 5 bytes")
	}
	if _, err := k.Sign(rand.Reader, make([]byte, 32), crypto.Hash(99)); err == nil {
		t.Error("signed a digest of no hash function")
	}
	raw, err := k.Sign(rand.Reader, []byte("anything"), crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPKCS1v15(k.Public().(*rsa.PublicKey), 0, []byte("anything"), raw); err != nil {
		t.Error(err)
	}
}

// Keys that pkcs11-tool makes, found by a certificate that it stored.
func TestKeysOfOtherTools(t *testing.T) {
	for _, kind := range []string{"EC:secp256r1", "EC:secp384r1", "EC:secp521r1", "rsa:2048"} {
		t.Run(kind, func(t *testing.T) {
			newHSM(t, "other")
			onToken(t, "other", "--keypairgen", "--key-type", kind, "--label", "my key", "--id", "00a1ff")
			m := load(t)
			k := open(t, m, "pkcs11:token=other;id=%00%a1%ff", nil, options(nil))
			checkSigns(t, k)
			cert := issue(t, k, "other")
			onToken(t, "other", "--write-object", writeDER(t, cert), "--type", "cert", "--label", "the certificate", "--id", "00a1ff")
			byCert := open(t, m, "pkcs11:token=other;object=the%20certificate", nil, options(nil))
			if !byCert.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public()) {
				t.Error("another key")
			}
			if got := byCert.URI().Value("object"); got != "my key" {
				t.Errorf("key %q", got)
			}
			certs, err := byCert.Certificates(t.Context())
			if err != nil || len(certs) != 1 || !certs[0].X509.Equal(cert) {
				t.Errorf("certificates %v, %v", certs, err)
			}
		})
	}
}

func TestManyGoroutines(t *testing.T) {
	newHSM(t, "many")
	m := load(t)
	var asked atomic.Int64
	o := options(&asked)
	o.MaxSessions = 4
	generate(t, m, "pkcs11:token=many;object=k", "ec-p256", options(nil)).Close()
	k := open(t, m, "pkcs11:token=many;object=k", nil, o)
	pub := k.Public().(*ecdsa.PublicKey)
	const goroutines, each = 32, 1000
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				digest := sha256.Sum256(fmt.Appendf(nil, "%d %d", g, i))
				sig, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
				if err != nil {
					t.Error(err)
					return
				}
				if !ecdsa.VerifyASN1(pub, digest[:], sig) {
					t.Error("a signature does not verify")
					return
				}
			}
		})
	}
	wg.Wait()
	if n := countSessions(t); n < 2 || n > 5 {
		t.Errorf("%d sessions for a bound of 4", n)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked for the PIN %d times", n)
	}
	k.Close()
	checkNoSessions(t)
}
