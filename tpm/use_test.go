package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

const cryptoSHA256 = crypto.SHA256

func TestConcurrent(t *testing.T) {
	for _, secret := range []string{"", longSecret} {
		s, d := start(t)
		k := openKey(t, d, create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))}), tpm.Options{Auth: password(secret, nil)})
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for range 200 {
					if err := sign(t, k); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		s.CheckEmpty()
	}
}

// More keys than the TPM has slots.
func TestManyKeys(t *testing.T) {
	s, d := start(t)
	var keys []*tpm.Key
	for i := range 6 {
		secret := []string{"", longSecret}[i%2]
		keys = append(keys, openKey(t, d, create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))}), tpm.Options{Auth: password(secret, nil)}))
	}
	for range 3 {
		for _, k := range keys {
			if err := sign(t, k); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.CheckEmpty()
}

func TestCreateRefusals(t *testing.T) {
	s, d := start(t)
	create(t, d, tpm.CreateOptions{Persistent: 0x81000060})
	before := s.Run("tpm2_readpublic", "-c", "0x81000060")
	for name, c := range map[string]struct {
		opts tpm.CreateOptions
		says string
	}{
		"handle in use":   {tpm.CreateOptions{Persistent: 0x81000060}, "in use"},
		"short password":  {tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234"))}, "guessing"},
		"long password":   {tpm.CreateOptions{Auth: signer.NewSecret(bytes.Repeat([]byte("x"), 33))}, "32"},
		"algorithm":       {tpm.CreateOptions{Algorithm: "DSA"}, "DSA"},
		"not a handle":    {tpm.CreateOptions{Persistent: 0x80000001}, "persistent"},
		"no such parent":  {tpm.CreateOptions{Parent: 0x81000061}, "0x81000061"},
		"not a parent":    {tpm.CreateOptions{Parent: 0x81000060}, "storage"},
		"unknown RSA key": {tpm.CreateOptions{Algorithm: tpm.RSA4096}, "does not make"},
	} {
		_, err := tpm.CreateKey(testContext(t), d, c.opts)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := s.Run("tpm2_readpublic", "-c", "0x81000060"); after != before {
		t.Error("the key was replaced")
	}
	for _, ref := range []string{"handle:0x81000061", "handle:80000001", "handle:", "handle:0x01800001"} {
		if _, err := tpm.OpenHandle(testContext(t), d, ref, tpm.Options{}); err == nil {
			t.Errorf("%s opened", ref)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.CheckEmpty()
}

func TestUnderTLS(t *testing.T) {
	_, d := start(t)
	for _, alg := range []tpm.Algorithm{tpm.P256, tpm.P384, tpm.RSA2048} {
		k := openKey(t, d, create(t, d, tpm.CreateOptions{Algorithm: alg}), tpm.Options{})
		cert := selfSigned(t, k)
		pool := x509.NewCertPool()
		pool.AddCert(cert)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(string(alg)+"/"+tls.VersionName(version), func(t *testing.T) {
				id := []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: k, Leaf: cert}}
				a, b := net.Pipe()
				defer a.Close()
				defer b.Close()
				server := tls.Server(b, &tls.Config{Certificates: id, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: version})
				client := tls.Client(a, &tls.Config{Certificates: id, RootCAs: pool, ServerName: "device", MaxVersion: version})
				done := make(chan error, 1)
				go func() { done <- client.Handshake() }()
				if err := server.Handshake(); err != nil {
					t.Error("server:", err)
				}
				if err := <-done; err != nil {
					t.Error("client:", err)
				}
			})
		}
	}
}

func selfSigned(t testing.TB, k crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device"}, DNSNames: []string{"device"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// Signatures that the TPM does not make itself are made with its RSA alone,
// where the key may decrypt; other keys say why not.
func TestPaddingOfOurOwn(t *testing.T) {
	s, d := start(t)
	k := openKey(t, d, genpkey(t, s, "-algorithm", "RSA", "-pkeyopt", "bits:2048"), tpm.Options{})
	ours := openKey(t, d, create(t, d, tpm.CreateOptions{Algorithm: tpm.RSA2048}), tpm.Options{})
	message := []byte("a message")
	for _, opts := range []crypto.SignerOpts{
		crypto.SHA224, crypto.SHA512_256, crypto.SHA3_256,
		&rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256},
		&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA512_256},
	} {
		sig, err := crypto.SignMessage(k, nil, message, opts)
		if err != nil {
			t.Errorf("%+v: %v", opts, err)
			continue
		}
		if err := signer.Verify(k.Public(), message, sig, opts); err != nil {
			t.Errorf("%+v: %v", opts, err)
		}
		if _, err := crypto.SignMessage(ours, nil, message, opts); !errors.Is(err, signer.ErrUnsupportedKey) {
			t.Errorf("%+v with a key that only signs: %v", opts, err)
		}
	}
	if _, err := k.Sign(nil, []byte("short"), crypto.SHA256); err == nil {
		t.Error("a digest of the wrong size was signed")
	}
}

// What fn leaves behind in Do is flushed.
func TestDoSweeps(t *testing.T) {
	s, d := start(t)
	failed := errors.New("failed")
	for range 5 {
		err := d.Do(testContext(t), func(tp transport.TPM) error {
			if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(tp); err != nil {
				return err
			}
			if _, _, err := tpm2.PolicySession(tp, tpm2.TPMAlgSHA256, 16); err != nil {
				return err
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	s.CheckEmpty()
}

func TestPins(t *testing.T) {
	s := tpmtest.Start(t)
	dir := t.TempDir()
	use := func() error {
		d, err := tpm.Config{LockDir: lockDir(t), Pins: tpm.DirPins(dir)}.Open(testContext(t), s.TCTI())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		_, err = tpm.CreateKey(testContext(t), d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
		return err
	}
	for range 2 {
		if err := use(); err != nil {
			t.Fatal(err)
		}
	}
	s.Run("tpm2_clear")
	s.Clear()
	if err := use(); !errors.Is(err, tpm.ErrPinned) || !strings.Contains(signer.Hint(err), dir) {
		t.Errorf("after a clear: %v (%s)", err, signer.Hint(err))
	}
}
