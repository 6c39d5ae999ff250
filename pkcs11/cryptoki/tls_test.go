//go:build cgo

package cryptoki_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

// Keys on a token authenticate TLS clients, by RSA (PSS in TLS 1.3) and ECDSA.
func TestTLSClient(t *testing.T) {
	newHSM(t, "tls")
	m := load(t)
	for _, algorithm := range []string{"ec-p256", "ec-p384", "rsa-2048"} {
		k := generate(t, m, "pkcs11:token=tls;object="+algorithm, algorithm, options(nil))
		cert := issue(t, k, algorithm)
		for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
			t.Run(algorithm+" "+name, func(t *testing.T) {
				handshake(t, k, cert, version)
			})
		}
	}
}

func handshake(t *testing.T, k *cryptoki.Key, cert *x509.Certificate, version uint16) {
	id, err := signer.New(k, cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	client, server := net.Pipe()
	defer client.Close()
	srv := tls.Server(server, &tls.Config{
		Certificates: []tls.Certificate{id.TLSCertificate()}, MinVersion: version, MaxVersion: version,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(srv, srv)
		done <- err
	}()
	c := tls.Client(client, &tls.Config{Certificates: []tls.Certificate{id.TLSCertificate()}, InsecureSkipVerify: true})
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if got := c.ConnectionState().Version; got != version {
		t.Errorf("version %x", got)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
