package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/enroll"
)

// do runs a command of the program in this process.
func (s *site) do(args ...string) string {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(s.t.Context(), args, &stdout, &stderr); code != exitOK {
		s.t.Fatalf("holdfast %s: exit code %d: %s", strings.Join(args, " "), code, stderr.String())
	}
	return stdout.String()
}

// certify issues a certificate for the token's key into a file.
func (s *site) certify(uri, file string) {
	s.t.Helper()
	csr, err := enroll.ParseRequest([]byte(s.do("csr", "--private-key", uri, "--subject", "CN=device")))
	must(s.t, err)
	leaf, err := s.ca.Sign(csr, enroll.LeafOptions{})
	must(s.t, err)
	s.write(file, enroll.EncodePEM(leaf))
}

// A certificate renewed in a SoftHSM token, for the same key, is used at the
// next refresh.
func TestServeFollowsTheTokensCertificate(t *testing.T) {
	s := newSite(t, 2*time.Second)
	t.Setenv("PATH", buildHost(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("SOFTHSM2_CONF", s.path("softhsm2.conf"))
	must(t, os.Mkdir(s.path("tokens"), 0o700))
	s.write("softhsm2.conf", []byte("directories.tokendir = "+s.path("tokens")+"\n"))
	s.write("pin", []byte("sesame-1234"))
	if out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "edge", "--pin", "sesame-1234", "--so-pin", "5678").CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util (apt-get install softhsm2): %v %s", err, out)
	}
	uri := "pkcs11:token=edge;object=device?module-name=softhsm2&pin-source=" + s.path("pin")
	s.do("key", "create", "--private-key", uri)
	s.certify(uri, "first.crt")
	s.do("certificate", "install", "--certificate", s.path("first.crt"), "--private-key", uri)

	v := s.serve("--port", "0", "--certificate", uri, "--endpoint", s.aws.URL,
		"--trust-anchor-arn", s.anchor, "--profile-arn", s.profile, "--role-arn", s.role)
	v.wait(`"msg":"session"`, 2)
	if n := len(s.serials()); n != 1 {
		t.Fatalf("%d certificates were used before there was a second", n)
	}
	s.certify(uri, "second.crt")
	s.do("certificate", "install", "--replace", "--certificate", s.path("second.crt"), "--private-key", uri)
	for until := time.Now().Add(30 * time.Second); len(s.serials()) < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the renewed certificate is not used:\n%s", v.stderr)
		}
	}
	v.stop()
	if log := v.stderr.String(); strings.Contains(log, "sesame") {
		t.Errorf("the PIN is in the log:\n%s", log)
	}
}
