//go:build linux

package hosted_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

// TestIdentity makes an RSA key and a certificate on the token, opens both in
// one go, and has them speak TLS, before and after a crash.
func TestIdentity(t *testing.T) {
	r := newRig(t)
	h := r.start(built.faulty)
	made, err := h.GenerateKey(t.Context(), r.uri, "rsa-2048", r.options(userPIN))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "workload"}, DNSNames: []string{"workload"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, made.Public(), made)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ImportCertificate(t.Context(), r.uri, cert, r.options(userPIN)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.GenerateKey(t.Context(), r.uri, "rsa-2048", r.options(userPIN)); !errors.Is(err, pkcs11.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	key, certs, err := h.OpenIdentity(t.Context(), r.uri, nil, r.options(userPIN))
	if err != nil {
		t.Fatal(err)
	}
	if len(certs) != 1 || !certs[0].X509.Equal(cert) {
		t.Fatalf("certificates: %v", certs)
	}
	id, err := signer.New(key, certs[0].X509, nil)
	if err != nil {
		t.Fatal(err)
	}
	speakTLS(t, id, cert)
	r.arm("C_Sign 1 segv")
	speakTLS(t, id, cert)

	digest := sha256.Sum256([]byte("holdfast"))
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	sig, err := key.Sign(nil, digest[:], pss)
	if err != nil {
		t.Fatal(err)
	}
	if err := signer.Verify(key.Public(), []byte("holdfast"), sig, pss); err != nil {
		t.Error(err)
	}
	if sig, err = key.SignMessage(nil, []byte("holdfast"), crypto.SHA256); err == nil {
		err = signer.Verify(key.Public(), []byte("holdfast"), sig, crypto.SHA256)
	}
	if err != nil {
		t.Error(err)
	}
	checkLists(t, r, h, cert)
}

func checkLists(t *testing.T, r *rig, h *hosted.Host, cert *x509.Certificate) {
	t.Helper()
	tokens, err := h.Tokens(t.Context())
	if err != nil || len(tokens) != 1 || tokens[0].Label != "rig" {
		t.Errorf("tokens %v, %v", tokens, err)
	}
	l, err := h.Library(t.Context())
	if err != nil || l.Manufacturer != "SoftHSM" {
		t.Errorf("library %+v, %v", l, err)
	}
	contents, err := h.List(t.Context(), r.uri, r.options(userPIN))
	if err != nil || len(contents) != 1 || len(contents[0].Keys) != 1 || len(contents[0].Certificates) != 1 || !contents[0].LoggedIn {
		t.Errorf("contents %+v, %v", contents, err)
	}
	found, err := h.Certificates(t.Context(), r.uri, hosted.Options{})
	if err != nil || len(found) != 1 || !found[0].X509.Equal(cert) {
		t.Errorf("certificates %v, %v", found, err)
	}
	_, err = h.Certificates(t.Context(), r.uri.With(pkcs11.AttrObject, "other"), hosted.Options{})
	if !errors.Is(err, signer.ErrCertificateNotFound) {
		t.Errorf("another label: %v", err)
	}
}

func speakTLS(t *testing.T, id *signer.Identity, root *x509.Certificate) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(root)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{id.TLSCertificate()}})
	go func() { _ = server.HandshakeContext(t.Context()) }() // the client reports what failed
	client := tls.Client(b, &tls.Config{RootCAs: pool, ServerName: "workload"})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
}
