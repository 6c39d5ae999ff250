package tpm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func count(commands []uint32) map[tpm2.TPMCC]int {
	n := map[tpm2.TPMCC]int{}
	for _, c := range commands {
		n[tpm2.TPMCC(c)]++
	}
	return n
}

func TestCommandCounts(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	for _, secret := range []string{"", longSecret} {
		d := open(t, p.Spec())
		f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))})
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		p.Commands()

		// Cold: a key file used once.
		d = open(t, p.Spec())
		k := openKey(t, d, f, tpm.Options{Auth: password(secret, nil), CloseDevice: true})
		if err := sign(t, k); err != nil {
			t.Fatal(err)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		got := count(p.Commands())
		delete(got, tpm2.TPMCCFlushContext)
		want := map[tpm2.TPMCC]int{tpm2.TPMCCCreatePrimary: 1, tpm2.TPMCCLoad: 1, tpm2.TPMCCSign: 1}
		if secret != "" {
			want[tpm2.TPMCCStartAuthSession] = 1
			want[tpm2.TPMCCGetCapability] = 1 // which sessions others have, for the journal
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("cold, password %q: %v, want %v", secret, got, want)
		}

		// Warm: one command for each signature.
		d = open(t, p.Spec())
		k = openKey(t, d, f, tpm.Options{Auth: password(secret, nil)})
		if err := sign(t, k); err != nil {
			t.Fatal(err)
		}
		p.Commands()
		for range 100 {
			if err := sign(t, k); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.Commands(); len(got) != 100 {
			t.Errorf("warm, password %q: %v for 100 signatures", secret, count(got))
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.CheckEmpty()
}

// Nothing that passes between us and the TPM holds a password, on any path.
func TestCapture(t *testing.T) {
	s := tpmtest.Start(t)
	secrets := []string{"open sesame 123456", longSecret, "1234567890", "owner secret word", "parent secret word"}
	s.Run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", "p.ctx", "-p", secrets[4])
	s.Run("tpm2_evictcontrol", "-C", "o", "-c", "p.ctx", "0x81000020")
	s.Clear()
	s.Run("tpm2_changeauth", "-c", "o", secrets[3])

	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	owner, parent := password(secrets[3], nil), password(secrets[4], nil)
	for _, opts := range []tpm.CreateOptions{
		{Auth: signer.NewSecret([]byte(secrets[0])), OwnerAuth: owner},
		{Auth: signer.NewSecret([]byte(secrets[1])), OwnerAuth: owner, Algorithm: tpm.RSA2048, RSAParent: true},
		{Auth: signer.NewSecret([]byte(secrets[2])), OwnerAuth: owner, DA: true, Persistent: 0x81000030},
		{Auth: signer.NewSecret([]byte(secrets[2])), ParentAuth: parent, DA: true, Parent: 0x81000020},
	} {
		f := create(t, d, opts)
		use := tpm.Options{Auth: password(string(opts.Auth.Reveal()), nil), OwnerAuth: opts.OwnerAuth, ParentAuth: opts.ParentAuth}
		checkSigns(t, openKey(t, d, f, use))
		use.Auth = password("wrong "+secrets[0], nil)
		if err := sign(t, openKey(t, d, f, use)); !errors.Is(err, signer.ErrPINIncorrect) && !errors.Is(err, signer.ErrPINFinalTry) {
			t.Errorf("a wrong password: %v", err)
		}
		if opts.Persistent != 0 {
			use.Auth = password(string(opts.Auth.Reveal()), nil)
			checkSigns(t, openHandle(t, d, "handle:81000030", use))
		}
	}
	certs := certificates(t, 1)
	if err := tpm.WriteCertificates(testContext(t), d, 0x1800100, certs, tpm.NVOptions{OwnerAuth: owner}); err != nil {
		t.Error(err)
	}
	if _, err := tpm.ReadCertificates(testContext(t), d, 0x1800100, tpm.NVOptions{OwnerAuth: owner}); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	captured := p.Captured()
	if len(captured) < 10000 {
		t.Fatalf("only %d bytes were captured", len(captured))
	}
	for _, s := range secrets {
		if bytes.Contains(captured, []byte(s)) || bytes.Contains(captured, []byte(strings.SplitN(s, "\x00", 2)[0])) {
			t.Errorf("%q passed the wire", s)
		}
	}
	s.CheckEmpty()
}

func TestRetries(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	k := openKey(t, d, create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))}), tpm.Options{Auth: password(longSecret, nil)})
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCObjectMemory, tpm2.TPMRCRetry | 0xb0000} {
		var n atomic.Int32
		p.Fault(func(uint32, []byte) (uint32, bool) { return uint32(rc), n.Add(1)%4 != 0 })
		if err := sign(t, k); err != nil {
			t.Errorf("%v: %v", rc, err)
		}
	}

	p.Fault(func(code uint32, _ []byte) (uint32, bool) {
		return uint32(tpm2.TPMRCRetry), tpm2.TPMCC(code) == tpm2.TPMCCSign
	})
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := k.SignContext(ctx, make([]byte, 32), cryptoSHA256)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 3*time.Second {
		t.Errorf("a TPM that is busy for ever: %v after %v", err, time.Since(began))
	}
	p.Fault(nil)
	if err := sign(t, k); err != nil {
		t.Error(err)
	}
	p.Break()
	if err := sign(t, k); err != nil {
		t.Errorf("after the connection broke: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.CheckEmpty()
}

// The context ends while a command runs, at every command in turn.
func TestCutOff(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
	for n := range int32(12) {
		if err := d.Do(testContext(t), func(transport.TPM) error { return nil }); err != nil {
			t.Fatal(err)
		}
		k := openKey(t, d, f, tpm.Options{Auth: password(longSecret, nil)})
		ctx, cancel := context.WithCancel(testContext(t))
		var seen atomic.Int32
		p.Fault(func(uint32, []byte) (uint32, bool) {
			if seen.Add(1) == n+1 {
				cancel()
				time.Sleep(10 * time.Millisecond)
			}
			return 0, false
		})
		_, err := k.SignContext(ctx, make([]byte, 32), cryptoSHA256)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cut off at command %d: %v", n, err)
		}
		cancel()
		p.Fault(nil)
		if err := sign(t, k); err != nil {
			t.Errorf("after a cut at command %d: %v", n, err)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.CheckEmpty()
}

func TestRestart(t *testing.T) {
	s := tpmtest.Start(t)
	d := open(t, s.TCTI())
	file := openKey(t, d, create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))}), tpm.Options{Auth: password(longSecret, nil)})
	create(t, d, tpm.CreateOptions{Persistent: 0x81000040})
	handle := openHandle(t, d, "handle:81000040", tpm.Options{})
	check := func(what string) {
		t.Helper()
		for _, k := range []*tpm.Key{file, handle} {
			if err := sign(t, k); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	check("at first")
	for name, disturb := range map[string]func(){
		"crash":           func() { s.Kill(); s.Launch() },
		"power cycle":     func() { s.Reset() },
		"tpm2_startup":    func() { s.Run("tpm2_shutdown", "-c"); s.Reset(); s.Run("tpm2_startup", "-c") },
		"flushed objects": func() { s.Clear() },
	} {
		disturb()
		check("after " + name + ", at once")
		disturb()
		time.Sleep(100 * time.Millisecond) // long enough for the lease to end
		check("after " + name)
		disturb()
		check("after " + name + ", again")
	}
	s.Run("tpm2_evictcontrol", "-C", "o", "-c", "0x81000040")
	if err := sign(t, handle); !errors.Is(err, signer.ErrKeyNotFound) {
		t.Errorf("after the key was removed: %v", err)
	}
	s.Kill()
	err := sign(t, file)
	if !errors.Is(err, signer.ErrTokenGone) || signer.Hint(err) == "" {
		t.Errorf("with the TPM gone: %v", err)
	}
	s.Launch()
	if err := sign(t, file); err != nil {
		t.Errorf("with the TPM back: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Setenv("TPM_DEVICE", "/nonexistent/tpm")
	for spec, want := range map[string]string{
		"":                     "/nonexistent/tpm",
		"device:/dev/null/tpm": "/dev/null/tpm",
		"mssim:host=localhost": "mssim",
		"swtpm:colour=red":     "colour",
		"tcp:localhost":        "host:port",
		"nonsense:":            "unknown",
	} {
		_, err := tpm.Open(testContext(t), spec)
		if err == nil || !strings.Contains(err.Error(), want) || signer.Hint(err) == "" && strings.Contains(spec, ":") && !strings.HasPrefix(spec, "device") {
			t.Errorf("%q: %v (%s)", spec, err, signer.Hint(err))
		}
	}
	if _, err := tpm.Open(testContext(t), "/nonexistent/tpm"); !errors.Is(err, signer.ErrTokenNotFound) {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.Open(testContext(t), path); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Error(err)
	}
	d := open(t, "tcp:127.0.0.1:1")
	err := d.Do(testContext(t), func(tp transport.TPM) error {
		_, err := tpm2.GetRandom{BytesRequested: 1}.Execute(tp)
		return err
	})
	if !errors.Is(err, signer.ErrTokenGone) {
		t.Error(err)
	}
}
