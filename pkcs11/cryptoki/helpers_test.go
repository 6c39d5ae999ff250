//go:build cgo

package cryptoki_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

const userPIN, soPIN = "Ge-heim", "12345678"

// install is what a test that lacks a tool says.
const install = "apt-get install softhsm2 opensc"

func modulePath(t testing.TB) string {
	t.Helper()
	u := new(pkcs11.URI).With(pkcs11.AttrModuleName, "softhsm2")
	path, err := pkcs11.FindModule(u, "")
	if err != nil {
		t.Fatalf("%v\n%s", err, install)
	}
	return path
}

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: %s", name, install)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newHSM gives the test a SoftHSM of its own with tokens of these labels.
func newHSM(t testing.TB, labels ...string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	store := filepath.Join(dir, "tokens")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+store+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range labels {
		tool(t, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", userPIN, "--so-pin", soPIN)
	}
}

func p11tool(t testing.TB, args ...string) string {
	t.Helper()
	return tool(t, "pkcs11-tool", append([]string{"--module", modulePath(t)}, args...)...)
}

// onToken runs pkcs11-tool, logged in to the token of that label.
func onToken(t testing.TB, label string, args ...string) string {
	t.Helper()
	return p11tool(t, append([]string{"--token-label", label, "--login", "--pin", userPIN}, args...)...)
}

func load(t testing.TB) *cryptoki.Module {
	t.Helper()
	m, err := cryptoki.Load(modulePath(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		checkNoSessions(t)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// checkNoSessions probes for sessions: SoftHSM does not count them, and gives
// handles one after the other.
func checkNoSessions(t testing.TB) {
	t.Helper()
	if n := countSessions(t); n != 0 {
		t.Errorf("%d sessions left", n)
	}
}

func countSessions(t testing.TB) int {
	t.Helper()
	ctx := p11.New(modulePath(t))
	n := 0
	for h := range p11.SessionHandle(20000) {
		if _, err := ctx.GetSessionInfo(h); err == nil {
			n++
		}
	}
	return n
}

func uri(t testing.TB, s string) *pkcs11.URI {
	t.Helper()
	u, err := pkcs11.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// options answers with the right PIN, and counts how often it was asked.
func options(asked *atomic.Int64) cryptoki.Options {
	return withPIN(userPIN, asked)
}

func withPIN(pin string, asked *atomic.Int64) cryptoki.Options {
	return cryptoki.Options{PIN: func(context.Context, cryptoki.Token) (signer.Secret, error) {
		if asked != nil {
			asked.Add(1)
		}
		return signer.NewSecret([]byte(pin)), nil
	}}
}

func open(t testing.TB, m *cryptoki.Module, u string, hint crypto.PublicKey, o cryptoki.Options) *cryptoki.Key {
	t.Helper()
	k, err := m.OpenKey(context.Background(), uri(t, u), hint, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func generate(t testing.TB, m *cryptoki.Module, u, algorithm string, o cryptoki.Options) *cryptoki.Key {
	t.Helper()
	k, err := m.GenerateKey(context.Background(), uri(t, u), algorithm, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// issue makes a self-signed certificate with the key on the token.
func issue(t testing.TB, k crypto.Signer, name string) *x509.Certificate {
	t.Helper()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		t.Fatal(err)
	}
	return cert
}

func writeDER(t testing.TB, cert *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cert.der")
	if err := os.WriteFile(path, cert.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func checkSigns(t testing.TB, k crypto.Signer) {
	t.Helper()
	message := []byte("a message")
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		w := h.New()
		w.Write(message)
		sig, err := k.Sign(rand.Reader, w.Sum(nil), h)
		if err != nil {
			t.Fatal(err)
		}
		if err := signer.Verify(k.Public(), message, sig, h); err != nil {
			t.Errorf("%v: %v", h, err)
		}
	}
}

// checkError wants one line, a hint and no PIN.
func checkError(t testing.TB, err error, is error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("not %q: %v", is, err)
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), userPIN) {
		t.Errorf("more than a line, or a PIN: %q", err)
	}
	if signer.Hint(err) == "" {
		t.Errorf("no hint: %v", err)
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("no %q in: %v", s, err)
		}
	}
}
