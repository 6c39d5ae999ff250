package tpmtest

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

func TestBetrays(t *testing.T) {
	const secret = "open sesame\x00tail"
	sum, padded := sha256.Sum256([]byte(secret)), sha256.Sum256(append([]byte(secret), make([]byte, 32-len(secret))...))
	for name, bytes := range map[string][]byte{
		"as it is":   []byte("xx" + secret + "xx"),
		"cut":        []byte("xxopen sesamexx"),
		"hex":        []byte(hex.EncodeToString([]byte(secret))),
		"hashed":     append([]byte("xx"), sum[:]...),
		"and padded": append([]byte("xx"), padded[:]...),
	} {
		if p := (&Proxy{bytes: bytes}); p.Betrays(secret) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
	if how := (&Proxy{bytes: []byte("open ses")}).Betrays(secret); how != "" {
		t.Error(how)
	}
}

func TestCareless(t *testing.T) {
	s := Start(t)
	for name, c := range map[string]struct {
		auth tpm2.Session
		want bool
	}{
		"empty password": {tpm2.PasswordAuth(nil), false},
		"password":       {tpm2.PasswordAuth([]byte("sesame")), true},
		"unsalted":       {tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(nil)), true},
	} {
		p := &recorder{TPM: s}
		_, _ = tpm2.CreatePrimary{
			PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: c.auth}, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate),
		}.Execute(p)
		s.Clear()
		if found := p.Careless(); (len(found) > 0) != c.want || len(p.passed) == 0 {
			t.Errorf("%s: %q in %d commands", name, found, len(p.passed))
		}
	}
}

// A recorder is a Proxy in the same process.
type recorder struct {
	Proxy
	*TPM
}

func (r *recorder) Send(command []byte) ([]byte, error) {
	rsp, err := r.TPM.Send(command)
	r.passed = append(r.passed, exchange{command, rsp})
	return rsp, err
}
