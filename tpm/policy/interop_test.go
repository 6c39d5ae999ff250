package policy_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// runner runs programs on an swtpm, in a directory of their own.
func runner(t *testing.T, socket string) (dir string, run func(name, pkg string, args ...string) []byte) {
	t.Helper()
	dir = t.TempDir()
	return dir, func(name, pkg string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(tool(t, name, pkg), args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+socket)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, stderr.Bytes())
		}
		return out
	}
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The digests of tpm2-tools are those of this package.
func TestTPM2Tools(t *testing.T) {
	tpm := startSWTPM(t)
	dir, run := runner(t, tpm.Socket())
	tools := func(args ...string) { run(args[0], "tpm2-tools", args[1:]...) }
	at := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	check := func(file string, p *policy.Policy) {
		t.Helper()
		got, err := p.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if want := at(file); !bytes.Equal(got, want) {
			t.Errorf("%v: %x, tpm2-tools say %x", p, got, want)
		}
	}
	begin := func(args ...string) { tools(append([]string{"tpm2_startauthsession", "-S", "s.ctx"}, args...)...) }
	end := func() { tools("tpm2_flushcontext", "s.ctx") }

	extend(t, tpm, 16, "something")
	pcr := bound(t, tpm, "sha256:0,7,16+sha1:1,2")
	begin()
	tools("tpm2_policypcr", "-S", "s.ctx", "-l", "sha256:0,7,16+sha1:1,2", "-L", "pcr")
	tools("tpm2_policyauthvalue", "-S", "s.ctx", "-L", "pcr+auth")
	end()
	check("pcr", of(pcr))
	check("pcr+auth", of(pcr, policy.AuthValue{}))

	begin()
	tools("tpm2_policysecret", "-S", "s.ctx", "-c", "o", "-L", "secret")
	end()
	check("secret", of(policy.Secret{Object: tpm2.TPMRHOwner, Name: tpm2.HandleName(tpm2.TPMRHOwner).Buffer}))

	begin()
	tools("tpm2_policyauthvalue", "-S", "s.ctx", "-L", "auth")
	tools("tpm2_policyor", "-S", "s.ctx", "-l", "sha256:pcr,auth", "-L", "or")
	end()
	either, err := policy.Either(of(pcr), of(policy.AuthValue{}))
	if err != nil {
		t.Fatal(err)
	}
	check("or", either)

	begin()
	tools("tpm2_policycommandcode", "-S", "s.ctx", "-L", "code", "TPM2_CC_Sign")
	end()
	check("code", of(policy.CommandCode{Code: tpm2.TPMCCSign}))

	// Authorize, by a key as tpm2-tools see it.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "pub.pem"), "PUBLIC KEY", spki)
	by := authorizeBy(t, key)
	name, err := by.Name()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "name"), name, 0o600); err != nil {
		t.Fatal(err)
	}
	begin()
	tools("tpm2_policyauthorize", "-S", "s.ctx", "-i", "pcr", "-n", "name", "-L", "authorize")
	end()
	check("authorize", of(by))
}

// systemd-measure signs, and its signature lets a key sign on the machine that
// booted what it measured.
func TestSystemdMeasure(t *testing.T) {
	tpm := startSWTPM(t)
	dir, run := runner(t, tpm.Socket())
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "public.pem"), "PUBLIC KEY", spki)
	writePEM(t, filepath.Join(dir, "private.pem"), "PRIVATE KEY", pkcs8)
	if err := os.WriteFile(filepath.Join(dir, "linux"), []byte("a kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run("systemd-measure", "systemd", "sign", "--linux=linux", "--bank=sha256", "--private-key=private.pem",
		"--public-key=public.pem", "--tpm2-device="+tpm.TCTI())
	signed, err := policy.ParseSignedPCRs(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(signed.Entries) < 2 {
		t.Fatalf("%d entries in %s", len(signed.Entries), out)
	}
	p := roundTrip(t, of(authorizeBy(t, key)))
	k := newKey(t, tpm, p, "")
	if err := k.sign(t, p, policy.Inputs{Signed: always(signed)}); err == nil {
		t.Error("before the kernel was measured, the key signs")
	}
	// As systemd-stub and systemd-pcrphase extend PCR 11.
	for _, measured := range []string{".linux\x00", "a kernel", "enter-initrd"} {
		extend(t, tpm, 11, measured)
	}
	if err := k.sign(t, p, policy.Inputs{Signed: always(signed)}); err != nil {
		t.Errorf("in the initrd: %v", err)
	}
	extend(t, tpm, 11, "leave-initrd")
	if err := k.sign(t, p, policy.Inputs{Signed: always(signed)}); err != nil {
		t.Errorf("after the initrd: %v", err)
	}
	extend(t, tpm, 11, "something else")
	if err := k.sign(t, p, policy.Inputs{Signed: always(signed)}); err == nil {
		t.Error("in an unknown state, the key signs")
	}

	// And ours are as systemd's: the same for the same values.
	sel := selection(t, "sha256:11")
	ours, err := policy.SignPCRs(rand.Reader, key, tpm2.TPMAlgSHA256, sel, policy.Values{tpm2.TPMAlgSHA256: {11: make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.KeyFingerprint, signed.Entries[0].KeyFingerprint) {
		t.Errorf("key fingerprint %x, systemd says %x", ours.KeyFingerprint, signed.Entries[0].KeyFingerprint)
	}
}
