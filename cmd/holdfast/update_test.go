package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

// TestUpdateGoesOn runs update with sessions of 3 s: it replaces them in time,
// survives that AWS and the disk are away, takes a renewed certificate, and
// ends when told to.
func TestUpdateGoesOn(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	srv := rolesanywheretest.NewUnstartedServer()
	srv.MinSession = time.Second
	srv.Start()
	defer srv.Close()
	caKey, err := software.Generate("ec-p256")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "CA"}})
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := srv.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "ca", Certificates: []*x509.Certificate{ca.Certificate}})
	if err != nil {
		t.Fatal(err)
	}
	role := srv.AddRole(rolesanywheretest.Role{Name: "edge"})
	profile := srv.AddProfile(rolesanywheretest.Profile{Name: "edge", RoleARNs: []string{role}, Duration: 3 * time.Second})
	key, err := software.Generate("ec-p256")
	if err != nil {
		t.Fatal(err)
	}
	text, err := software.MarshalPrivateKey(key, signer.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	if err := software.WriteKeyFile(at("key"), text); err != nil {
		t.Fatal(err)
	}
	renew := func() string {
		leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "edge"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at("crt"), enroll.EncodePEM(leaf), 0o600); err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.String()
	}
	renew()
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", at("credentials"))

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stdout, stderr bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"update", "--profile", "edge", "--endpoint", srv.URL, "--certificate", at("crt"), "--private-key", at("key"),
			"--trust-anchor-arn", anchor, "--profile-arn", profile, "--role-arn", role}, &stdout, &stderr)
	}()
	accessKey := regexp.MustCompile(`aws_access_key_id = (ASIA[A-Z0-9]{16})\n`)
	next := func(after string) string {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			text, _ := os.ReadFile(at("credentials"))
			if m := accessKey.FindSubmatch(text); m != nil && string(m[1]) != after {
				return string(m[1])
			}
		}
		t.Fatalf("no credentials after %q", after)
		return ""
	}
	first := next("")
	second := next(first)
	if s, ok := srv.Session(first); !ok || time.Until(s.Expiration) < 0 {
		t.Error("replaced after they had expired")
	}
	serial := renew()
	third := next(second)
	if got := srv.Requests()[len(srv.Requests())-1].Serial; got != serial {
		t.Errorf("certificate %s, want %s", got, serial)
	}
	srv.SetFault(rolesanywheretest.HTML)
	time.Sleep(3 * time.Second)
	srv.SetFault("")
	fourth := next(third)
	if err := os.Chmod(at("credentials"), 0o400); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if err := os.Chmod(at("credentials"), 0o600); err != nil {
		t.Fatal(err)
	}
	next(fourth)
	stop()
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d", c)
	}
	for _, want := range []string{"warning: profile edge: .*web page.*; trying again in [56]s\n", "warning: profile edge: .*read-only.*; trying again in [56]s\n"} {
		if !regexp.MustCompile(want).Match(stderr.Bytes()) {
			t.Errorf("no %q on stderr", want)
		}
	}
	if n := srv.RequestCount(); n > 12 {
		t.Errorf("%d requests", n)
	}
	if stdout.Len() > 0 || strings.Contains(stderr.String(), "session_token") {
		t.Errorf("%s\n%s", stdout.String(), stderr.String())
	}
}

func TestReplaceAt(t *testing.T) {
	now := time.Now()
	for _, life := range []time.Duration{-time.Hour, time.Second, 3 * time.Second, time.Minute, 15 * time.Minute, time.Hour, 12 * time.Hour} {
		for range 50 {
			at := replaceAt(now, now.Add(life))
			if life < 0 && at.Sub(now) < time.Minute || life > 0 && (at.Before(now.Add(life/2)) || at.After(now.Add(life-min(life/3, updateBefore)))) {
				t.Fatalf("a session of %v is replaced after %v", life, at.Sub(now))
			}
		}
	}
	for n := 1; n < 100; n++ {
		if d := backOff(n); d < firstBackOff || d > maxBackOff*6/5 {
			t.Fatalf("failure %d: %v", n, d)
		}
	}
}

func TestOpensUnasked(t *testing.T) {
	for _, algorithm := range []string{"ec-p256", "rsa-2048", "ml-dsa-65"} {
		key, err := software.Generate(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		for _, passphrase := range []string{"", "sesame"} {
			text, err := software.MarshalPrivateKey(key, signer.NewSecret([]byte(passphrase)))
			if err != nil {
				t.Fatal(err)
			}
			der := pemBytes(text)
			if opensUnasked(text) != (passphrase == "") || opensUnasked(der) != (passphrase == "") {
				t.Errorf("%s with passphrase %q", algorithm, passphrase)
			}
		}
	}
	for _, text := range []string{"", "x", "0", "0\x82", "0\x82\x01\x02\x02\x01", "\x30\x80\x02\x01\x03\x30\x80\x00\x00", "hello, world"} {
		if opensUnasked([]byte(text)) {
			t.Errorf("%q opens", text)
		}
	}
}

func pemBytes(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}
