package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// A lab is a made-up AWS, and one device with a key of every kind.
type lab struct {
	dir, holdfast string
	ca            *enroll.CA
	server        *httptest.Server
	in            rolesanywhere.SessionInput
	closers       []func()

	keyFile, certFile   string
	tokenURI            string
	tpmKeyFile, tpmCert string
	handle, handleCert  string
	tpm                 *tpmtest.TPM
	tpmProxy            *tpmtest.Proxy

	mu       sync.Mutex
	last     *http.Request
	lastBody []byte
}

// newLab starts the strict endpoint. Its path /floor does for the floor program
// what /sessions does for holdfast: it verifies a genuine request, the last that
// holdfast sent, and answers with a session.
func newLab(dir, algorithm string) (*lab, error) {
	endpoint := rolesanywheretest.NewUnstartedServer()
	mux := http.NewServeMux()
	l := &lab{dir: dir, holdfast: filepath.Join(dir, "holdfast"), server: httptest.NewServer(mux), keyFile: filepath.Join(dir, "key.pem"), certFile: filepath.Join(dir, "cert.pem")}
	l.onClose(l.server.Close)
	// What holdfast remembers between runs is the lab's too.
	if err := os.Setenv("XDG_STATE_HOME", dir); err != nil {
		return nil, err
	}

	caKey, err := software.Generate("ec-p256")
	if err != nil {
		return nil, err
	}
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "bench CA"}})
	if err != nil {
		return nil, err
	}
	l.ca = ca
	key, err := software.Generate(algorithm)
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "bench"}})
	if err != nil {
		return nil, err
	}
	text, err := software.MarshalPrivateKey(key, signer.Secret{})
	if err != nil {
		return nil, err
	}
	if err := software.WriteKeyFile(l.keyFile, text); err != nil {
		return nil, err
	}
	if err := os.WriteFile(l.certFile, enroll.EncodePEM(leaf), 0o644); err != nil {
		return nil, err
	}

	if l.in.TrustAnchorARN, err = endpoint.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "bench", Certificates: []*x509.Certificate{ca.Certificate}}); err != nil {
		return nil, err
	}
	l.in.RoleARN = endpoint.AddRole(rolesanywheretest.Role{Name: "bench"})
	l.in.ProfileARN = endpoint.AddProfile(rolesanywheretest.Profile{Name: "bench", RoleARNs: []string{l.in.RoleARN}})

	mux.HandleFunc("/sessions", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.last, l.lastBody = r.Clone(context.WithoutCancel(r.Context())), body
		l.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		endpoint.ServeHTTP(w, r)
	})
	mux.HandleFunc("/floor", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		l.mu.Lock()
		replay := l.last.Clone(r.Context())
		replay.Body = io.NopCloser(bytes.NewReader(l.lastBody))
		l.mu.Unlock()
		endpoint.ServeHTTP(w, replay)
	})
	return l, nil
}

func (l *lab) onClose(f func()) { l.closers = append(l.closers, f) }

func (l *lab) close() {
	for _, f := range slices.Backward(l.closers) {
		f()
	}
}

func (l *lab) credentialProcess(identity ...string) []string {
	return append([]string{l.holdfast, "credential-process", "--endpoint", l.server.URL,
		"--trust-anchor-arn", l.in.TrustAnchorARN, "--profile-arn", l.in.ProfileARN, "--role-arn", l.in.RoleARN}, identity...)
}

func output(name string, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, stderr.String())
	}
	return out, nil
}
