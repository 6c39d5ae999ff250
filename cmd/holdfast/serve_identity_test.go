package main

import (
	"crypto/x509/pkix"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/software"
)

// A new key and certificate come into place one after the other, byte after
// byte. Meanwhile the old pair is used.
func TestServeFollowsTheCertificate(t *testing.T) {
	s := newSite(t, 2*time.Second)
	v := s.serve(append(s.flags(), "--port", "0")...)
	v.wait(`"msg":"session"`, 1)
	key, cert := s.pair()
	for _, f := range []struct {
		name string
		text []byte
	}{{"device.key", key}, {"device.crt", cert}} {
		for _, part := range []int{0, len(f.text) / 3, len(f.text) - 30} {
			s.write(f.name, f.text[:part])
			v.wait(`"msg":"session"`, strings.Count(v.stderr.String(), `"msg":"session"`)+2)
		}
		if len(s.serials()) != 1 {
			t.Fatal("a half-written pair was used")
		}
		s.write(f.name, f.text)
	}
	for until := time.Now().Add(30 * time.Second); len(s.serials()) < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the new pair is not used:\n%s", v.stderr)
		}
	}

	// A certificate alone, for the same key: it is not opened again.
	pem, err := os.ReadFile(s.path("device.key"))
	must(t, err)
	contents, err := software.Parse(t.Context(), "key", pem, software.Options{})
	must(t, err)
	k, err := contents.Key()
	must(t, err)
	leaf, err := s.ca.Issue(k.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "device"}})
	must(t, err)
	s.write("device.crt", enroll.EncodePEM(leaf))
	for until := time.Now().Add(30 * time.Second); len(s.serials()) < 3; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the renewed certificate is not used:\n%s", v.stderr)
		}
	}
	// One that is over does not take the place of one that is not.
	expired, err := s.ca.Issue(k.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "device"}, Lifetime: time.Second})
	must(t, err)
	time.Sleep(1100 * time.Millisecond)
	s.write("device.crt", enroll.EncodePEM(expired))
	v.wait("certificate has expired", 1)
	v.wait(`"msg":"session"`, strings.Count(v.stderr.String(), `"msg":"session"`)+1)
	if n := len(s.serials()); n != 3 {
		t.Errorf("%d certificates were used", n)
	}
	v.stop()
	if log := v.stderr.String(); strings.Contains(log, "session failed") || !strings.Contains(log, "the old pair stays in use") {
		t.Errorf("%s", log)
	}
}
