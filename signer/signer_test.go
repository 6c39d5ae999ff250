package signer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
)

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t *testing.T, name string) *enroll.CA {
	t.Helper()
	ca, err := enroll.NewCA(ecKey(t), enroll.CAOptions{Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().AddDate(-1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func subCA(t *testing.T, parent *enroll.CA, name string) *enroll.CA {
	t.Helper()
	key := ecKey(t)
	cert, err := parent.SignCA(key.Public(), enroll.CAOptions{Subject: pkix.Name{CommonName: name}})
	if err != nil {
		t.Fatal(err)
	}
	return &enroll.CA{Certificate: cert, Key: key}
}

func issue(t *testing.T, ca *enroll.CA, pub crypto.PublicKey, o enroll.LeafOptions) *x509.Certificate {
	t.Helper()
	if o.Subject.CommonName == "" {
		o.Subject.CommonName = "leaf"
	}
	leaf, err := ca.Issue(pub, o)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func keys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, pq, err := mldsa65.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"RSA-2048": rsaKey, "EC P-256": ecKey(t), "EC P-384": p384, "ML-DSA-65": pq}
}

func TestIdentitySignsAsItsKey(t *testing.T) {
	ca := newCA(t, "CA")
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			leaf := issue(t, ca, key.Public(), enroll.LeafOptions{})
			id, err := signer.New(key, leaf, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := signer.DescribeKey(id.Public()); got != name {
				t.Errorf("described as %s", got)
			}
			var opts crypto.SignerOpts = crypto.SHA256
			if strings.HasPrefix(name, "ML-DSA") {
				opts = crypto.Hash(0)
			}
			message := []byte("message")
			sig, err := id.SignMessage(nil, message, opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := signer.Verify(id.Public(), message, sig, opts); err != nil {
				t.Error(err)
			}
			if signer.Verify(id.Public(), []byte("another"), sig, opts) == nil {
				t.Error("a signature of another message verifies")
			}
			sig[len(sig)-1] ^= 1
			if signer.Verify(id.Public(), message, sig, opts) == nil {
				t.Error("a changed signature verifies")
			}
			if _, ok := key.Public().(*rsa.PublicKey); ok {
				pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
				sig, err := id.SignMessage(nil, message, pss)
				if err != nil {
					t.Fatal(err)
				}
				if err := signer.Verify(id.Public(), message, sig, pss); err != nil {
					t.Error("PSS:", err)
				}
			}
		})
	}
}

func TestKeyMismatch(t *testing.T) {
	ca, others := newCA(t, "CA"), keys(t)
	for certFor, certKey := range keys(t) {
		leaf := issue(t, ca, certKey.Public(), enroll.LeafOptions{})
		for name, key := range others {
			_, err := signer.New(key, leaf, nil)
			if !errors.Is(err, signer.ErrKeyMismatch) || signer.Hint(err) == "" {
				t.Errorf("%s key with a certificate of another %s: %v", name, certFor, err)
			}
		}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := signer.CheckSupported(ed.Public()); !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "no signing algorithm") {
		t.Errorf("Ed25519: %v", err)
	}
}

func TestOrderChain(t *testing.T) {
	root := newCA(t, "root")
	at := root
	var issuers []*x509.Certificate // the root's first
	for i := range 7 {
		at = subCA(t, at, fmt.Sprintf("level %d", i))
		issuers = append(issuers, at.Certificate)
	}
	leaf := issue(t, at, ecKey(t).Public(), enroll.LeafOptions{})
	stranger := newCA(t, "stranger")
	// A CA of the same name and another key.
	impostor := newCA(t, "level 6")
	pool := append([]*x509.Certificate{root.Certificate, leaf, stranger.Certificate, impostor.Certificate,
		subCA(t, stranger, "level 5").Certificate}, issuers...)
	chain := signer.OrderChain(leaf, append(pool, pool...))
	if len(chain) != signer.MaxChain {
		t.Fatalf("%d certificates, want %d", len(chain), signer.MaxChain)
	}
	for i, c := range chain {
		if want := issuers[len(issuers)-1-i]; !c.Equal(want) {
			t.Errorf("certificate %d is %q, want %q", i, c.Subject, want.Subject)
		}
	}
	if chain := signer.OrderChain(leaf, nil); len(chain) != 0 {
		t.Errorf("a chain of nothing: %v", chain)
	}
}

// Two CAs that certify each other must not make a chain without end.
func TestOrderChainOfCrossSigned(t *testing.T) {
	a, b := newCA(t, "A"), newCA(t, "B")
	aByB, err := b.SignCA(a.Key.Public(), enroll.CAOptions{Subject: a.Certificate.Subject})
	if err != nil {
		t.Fatal(err)
	}
	bByA, err := a.SignCA(b.Key.Public(), enroll.CAOptions{Subject: b.Certificate.Subject})
	if err != nil {
		t.Fatal(err)
	}
	leaf := issue(t, a, ecKey(t).Public(), enroll.LeafOptions{})
	chain := signer.OrderChain(leaf, []*x509.Certificate{bByA, aByB})
	if len(chain) != 2 || !chain[0].Equal(aByB) || !chain[1].Equal(bByA) {
		t.Errorf("chain %v", chain)
	}
}

func TestSelectLeaf(t *testing.T) {
	ca, key, now := newCA(t, "CA"), ecKey(t), time.Now()
	old := issue(t, ca, key.Public(), enroll.LeafOptions{NotBefore: now.Add(-48 * time.Hour), Lifetime: 24 * time.Hour})
	current := issue(t, ca, key.Public(), enroll.LeafOptions{Lifetime: 24 * time.Hour})
	longer := issue(t, ca, key.Public(), enroll.LeafOptions{Lifetime: 48 * time.Hour})
	future := issue(t, ca, key.Public(), enroll.LeafOptions{NotBefore: now.Add(24 * time.Hour), Lifetime: 96 * time.Hour})
	other := issue(t, ca, ecKey(t).Public(), enroll.LeafOptions{Lifetime: 96 * time.Hour})
	all := []*x509.Certificate{other, old, current, future, longer, ca.Certificate}
	leaf, others := signer.SelectLeaf(key.Public(), all, now)
	if !leaf.Equal(longer) || len(others) != len(all)-1 {
		t.Errorf("selected %x of %d", leaf.SerialNumber, len(others)+1)
	}
	if leaf, _ := signer.SelectLeaf(key.Public(), []*x509.Certificate{other, ca.Certificate}, now); !leaf.Equal(other) {
		t.Error("with none for the key, the first should stand for the rest")
	}
	if leaf, _ := signer.SelectLeaf(key.Public(), nil, now); leaf != nil {
		t.Error("a leaf from nothing")
	}
}

func TestUnderTLS(t *testing.T) {
	ca := newCA(t, "CA")
	mid := subCA(t, ca, "mid")
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	server := issue(t, ca, ca.Key.Public(), enroll.LeafOptions{})
	for name, key := range keys(t) {
		if strings.HasPrefix(name, "ML-DSA") {
			continue // crypto/tls has no ML-DSA
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+"/"+tls.VersionName(version), func(t *testing.T) {
				id, err := signer.New(key, issue(t, mid, key.Public(), enroll.LeafOptions{}), []*x509.Certificate{mid.Certificate})
				if err != nil {
					t.Fatal(err)
				}
				clientConn, serverConn := net.Pipe()
				srv := tls.Server(serverConn, &tls.Config{
					Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: ca.Key}},
					ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: version,
				})
				client := tls.Client(clientConn, &tls.Config{
					Certificates: []tls.Certificate{id.TLSCertificate()}, InsecureSkipVerify: true, MaxVersion: version, //nolint:gosec // the client is under test
				})
				done := make(chan error, 1)
				go func() { done <- client.Handshake() }()
				if err := srv.Handshake(); err != nil {
					t.Error("server:", err)
				}
				if err := <-done; err != nil {
					t.Error("client:", err)
				}
				clientConn.Close()
				serverConn.Close()
			})
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	s := signer.NewSecret([]byte("sesame"))
	doc, err := json.Marshal(map[string]any{"s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "in", struct{ S signer.Secret }{s})
	text := strings.Join([]string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s), fmt.Sprint(&s),
		fmt.Sprintf("%v", struct{ S signer.Secret }{s}), string(doc), log.String(), s.String(), s.GoString(),
	}, "\n")
	for _, leak := range []string{"sesame", "736573616d65", "c2VzYW1l", "115 101"} {
		if strings.Contains(text, leak) {
			t.Errorf("%q in\n%s", leak, text)
		}
	}
	if string(s.Reveal()) != "sesame" || s.Empty() {
		t.Error("Reveal does not")
	}
	s.Wipe()
	if strings.Trim(string(s.Reveal()), "\x00") != "" {
		t.Error("Wipe does not")
	}
}

func TestParseReference(t *testing.T) {
	for text, want := range map[string]signer.Reference{
		"":                             {},
		"/etc/key.pem":                 {Scheme: "file", Value: "/etc/key.pem"},
		"key.pem":                      {Scheme: "file", Value: "key.pem"},
		"file:key.pem":                 {Scheme: "file", Value: "key.pem"},
		"file:///etc/key.pem":          {Scheme: "file", Value: "/etc/key.pem"},
		"file://localhost/etc/key.pem": {Scheme: "file", Value: "/etc/key.pem"},
		`C:\key.pem`:                   {Scheme: "file", Value: `C:\key.pem`},
		"odd:name":                     {Scheme: "file", Value: "odd:name"},
		"pkcs11:token=a;object=b":      {Scheme: "pkcs11", Value: "pkcs11:token=a;object=b"},
		"PKCS11:token=a":               {Scheme: "pkcs11", Value: "PKCS11:token=a"},
		"handle:0x81000001":            {Scheme: "handle", Value: "handle:0x81000001"},
	} {
		if got := signer.ParseReference(text); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	r := signer.ParseReference("pkcs11:token=a?module-name=x&pin-value=sesame")
	if got := fmt.Sprint(r); got != "pkcs11:token=a?module-name=x&pin-value=[redacted]" {
		t.Errorf("printed as %s", got)
	}
}

func TestHint(t *testing.T) {
	base := errors.New("base")
	err := fmt.Errorf("outer: %w", signer.WithHint(base, "do this"))
	if signer.Hint(err) != "do this" || !errors.Is(err, base) || err.Error() != "outer: base" {
		t.Errorf("%v (%s)", err, signer.Hint(err))
	}
	if signer.Hint(base) != "" || signer.WithHint(nil, "x") != nil {
		t.Error("a hint out of nothing")
	}
}
