package main

import (
	"crypto/x509/pkix"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// TestServeFromTPM has a daemon make one session after the other with a TPM's
// keys while that is reset, killed, away for a while and busy.
func TestServeFromTPM(t *testing.T) {
	s := tpmtest.Start(t)
	proxy := tpmtest.NewProxy(t, s)
	w := newTPMSite(t, s, 3*time.Second)
	for _, name := range []string{tpmLockDirEnv, "XDG_STATE_HOME"} {
		t.Setenv(name, lookupEnv(w.env, name))
	}
	t.Setenv("TPM_DEVICE", proxy.Spec())
	w.certify("file", w.createKey(tpm.CreateOptions{Auth: secretOf(keySecret)}, "file.pem"))
	w.certify("handle", w.createKey(tpm.CreateOptions{Auth: secretOf(keySecret), Persistent: 0x81000030}, "handle.pem"))
	w.write("serve.conf", w.config("[role file]\ncertificate = "+w.path("file.crt")+"\nprivate-key = "+w.path("file.pem")+"\ntpm-key-auth = file:"+w.path("key-secret")+
		"\n[role handle]\ncertificate = "+w.path("handle.crt")+"\nprivate-key = handle:0x81000030\ntpm-key-auth = file:"+w.path("key-secret")+
		"\ntpm-device = swtpm:path="+proxy.Path+"\ntpm-parent-auth = env:NOWHERE\n[listen 127.0.0.1:0]\n"))
	v := w.serve("--config", w.path("serve.conf"))

	const session, failure = `"msg":"session"`, `"failures":`
	more := func(what string) {
		t.Helper()
		for _, role := range []string{`"role":"file"`, `"role":"handle"`} {
			has := func(line string) bool { return strings.Contains(line, session) && strings.Contains(line, role) }
			v.waitLines(what+" "+role, has, v.countLines(has)+2)
		}
	}
	more("at first")
	s.Reset()
	more("after a reset")
	s.Kill()
	s.Launch()
	more("after a crash")
	s.Clear()
	more("after what was loaded was flushed")
	proxy.Fault(func(uint32, []byte) (uint32, bool) { return uint32(tpm2.TPMRCRetry), rand.IntN(2) > 0 }) //nolint:gosec // not a secret
	more("while it is busy")
	proxy.Fault(nil)

	before := v.count(failure)
	s.Kill()
	v.wait(failure, before+2)
	s.Launch()
	more("after it was away")
	for line := range strings.Lines(v.stderr.String()) {
		if strings.Contains(line, failure) && (!strings.Contains(line, `"hint":"`) || strings.Contains(line, "AWS")) {
			t.Errorf("no word of what to do: %s", line)
		}
	}

	if code := v.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, v.stderr)
	}
	s.CheckEmpty()
	if n := failedTries(s); n != 0 {
		t.Errorf("%d lock-out tries were burnt", n)
	}
	if how := proxy.Betrays(keySecret); how != "" || len(proxy.Captured()) < 10_000 {
		t.Errorf("of %d bytes the password is among them, %s", len(proxy.Captured()), how)
	}
	if careless := proxy.Careless(); len(careless) > 0 {
		t.Errorf("%q", careless)
	}
	if strings.Contains(v.stderr.String(), keySecret) {
		t.Error("the password is in the log")
	}
}

// certify writes a certificate for a key.
func (w *tpmSite) certify(name string, f *tpm.KeyFile) {
	w.t.Helper()
	leaf, err := w.ca.Issue(f.PublicKey(), enroll.LeafOptions{Subject: pkix.Name{CommonName: name}})
	must(w.t, err)
	w.write(name+".crt", enroll.EncodePEM(leaf))
}

func (v *serving) count(text string) int { return strings.Count(v.stderr.String(), text) }

func (v *serving) countLines(has func(string) bool) (n int) {
	for line := range strings.Lines(v.stderr.String()) {
		if has(line) {
			n++
		}
	}
	return n
}

func (v *serving) waitLines(what string, has func(string) bool, n int) {
	v.t.Helper()
	for until := time.Now().Add(time.Minute); v.countLines(has) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			v.t.Fatalf("%s: no more sessions:\n%s", what, v.stderr)
		}
	}
}
