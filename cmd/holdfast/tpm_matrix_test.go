package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// Passwords of the TPM's objects in these tests.
const (
	keySecret    = "open sesame 1234"
	parentSecret = "sesame of the parent"
	ownerSecret  = "sesame of the owner"
)

// parentHandle is where a storage key with a password is.
const parentHandle tpm2.TPMHandle = 0x81000020

// h2 is the storage key that key files mean by a hierarchy, for tpm2_createprimary.
var h2 = []string{"-G", "ecc256:aes128cfb", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"}

// A tpmSite is a made-up AWS, and a TPM for the keys.
type tpmSite struct {
	*site
	tpm *tpmtest.TPM
	env []string
}

// newTPMSite makes one whose sessions live for life, 0 for an hour.
func newTPMSite(t *testing.T, s *tpmtest.TPM, life time.Duration) *tpmSite {
	t.Helper()
	dir := t.TempDir()
	w := &tpmSite{site: newSite(t, life), tpm: s}
	w.env = append(os.Environ(), "TPM_DEVICE="+s.TCTI(), tpmLockDirEnv+"="+dir, "XDG_STATE_HOME="+dir, "XDG_RUNTIME_DIR="+dir, cacheEnv+"=off", logDir+"="+dir, raceEnv)
	w.write("key-secret", []byte(keySecret+"\n"))
	w.write("parent-secret", []byte(parentSecret+"\n"))
	w.write("owner-secret", []byte(ownerSecret+"\n"))
	return w
}

// open opens the TPM as the program does, beside it.
func (w *tpmSite) open() *tpm.Device {
	w.t.Helper()
	d, err := tpm.Config{LockDir: lookupEnv(w.env, tpmLockDirEnv)}.Open(w.t.Context(), w.tpm.TCTI())
	must(w.t, err)
	return d
}

func lookupEnv(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// program is one run of holdfast.
func (w *tpmSite) program(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "holdfast", args...)
	cmd.Env = w.env
	return cmd
}

// holdfast runs the program and returns what it wrote and its exit code.
func (w *tpmSite) holdfast(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	cmd := w.program(w.t.Context(), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// session makes a session with the key, and fails the test unless it is one.
func (w *tpmSite) session(t *testing.T, key string, pub crypto.PublicKey, flags ...string) {
	t.Helper()
	leaf, err := w.ca.Issue(pub, enroll.LeafOptions{Subject: pkix.Name{CommonName: "device"}})
	must(t, err)
	cert := filepath.Join(t.TempDir(), "device.crt")
	must(t, os.WriteFile(cert, enroll.EncodePEM(leaf), 0o600))
	stdout, stderr, code := w.holdfast(append([]string{"credential-process", "--certificate", cert, "--private-key", key, "--endpoint", w.aws.URL,
		"--trust-anchor-arn", w.anchor, "--profile-arn", w.profile, "--role-arn", w.role}, flags...)...)
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var doc struct{ AccessKeyId, SecretAccessKey string }
	must(t, json.Unmarshal([]byte(stdout), &doc))
	if made, ok := w.aws.Session(doc.AccessKeyId); !ok || made.SecretAccessKey != doc.SecretAccessKey {
		t.Errorf("no session that AWS made: %s", doc.AccessKeyId)
	}
}

// A matrixKey is a key file and what its use takes.
type matrixKey struct {
	file  string
	flags []string // for the password of the key itself
}

func (k matrixKey) parse(t *testing.T) *tpm.KeyFile {
	t.Helper()
	text, err := os.ReadFile(k.file)
	must(t, err)
	f, err := tpm.ParseKeyFile(text)
	must(t, err)
	return f
}

// TestTPMMatrix has every kind of TPM, of key and of password, and every tool
// that makes keys, lead to a session, by key file and by persistent handle.
func TestTPMMatrix(t *testing.T) {
	state := "../../testdata/tpm/go-tpm-keyfiles/tpm2-00.permall"
	for name, start := range map[string]func(t *testing.T) *tpmtest.TPM{
		"unix":      func(t *testing.T) *tpmtest.TPM { return tpmtest.StartFrom(t, state) },
		"tcp":       func(t *testing.T) *tpmtest.TPM { return tpmtest.StartTCPFrom(t, state) },
		"simulator": startSimulator,
	} {
		t.Run(name, func(t *testing.T) {
			makers := []keyMaker{holdfastKey, opensslKey, toolsKey}
			if name != "simulator" {
				makers = append(makers, keyfilesKey) // whose keys are of one TPM
			}
			newTPMSite(t, start(t), 0).matrix(t, makers)
		})
	}
}

func startSimulator(t *testing.T) *tpmtest.TPM {
	t.Helper()
	socket, ok := strings.CutPrefix(startLab(t, "--key", "tpm")["TPM_DEVICE"], "swtpm:path=")
	if !ok {
		t.Fatal("the lab has no TPM")
	}
	return tpmtest.At(t, socket)
}

func (w *tpmSite) matrix(t *testing.T, makers []keyMaker) {
	w.tpm.Run(append([]string{"tpm2_createprimary", "-C", "o", "-c", "parent.ctx", "-p", parentSecret}, h2...)...)
	w.tpm.Run("tpm2_evictcontrol", "-C", "o", "-c", "parent.ctx", fmt.Sprintf("%#x", uint32(parentHandle)))
	w.tpm.Clear()
	passed := 0
	run := func(m keyMaker, alg tpm.Algorithm, auth string, k matrixKey, owner string) {
		storage := []string{}
		switch auth {
		case "parent":
			storage = []string{"--tpm-parent-auth", "file:" + w.path("parent-secret")}
		case "owner":
			storage = []string{"--tpm-owner-auth", "file:" + w.path("owner-secret")}
		}
		f := k.parse(t)
		t.Run(fmt.Sprintf("%s/%s/%s/file", m.name, alg, auth), func(t *testing.T) {
			if got := signer.DescribeKey(f.PublicKey()); got != string(alg) {
				t.Fatalf("it is %s", got)
			}
			w.session(t, k.file, f.PublicKey(), append(storage, k.flags...)...)
			passed++
		})
		t.Run(fmt.Sprintf("%s/%s/%s/handle", m.name, alg, auth), func(t *testing.T) {
			const handle = "0x81000100"
			w.persist(f, handle, owner)
			w.session(t, "handle:"+handle, f.PublicKey(), k.flags...)
			w.tpm.Run("tpm2_evictcontrol", "-C", "o", "-P", owner, "-c", handle)
			passed++
		})
	}
	later := map[string]matrixKey{}
	algorithms := []tpm.Algorithm{tpm.P256, tpm.P384, tpm.RSA2048}
	for _, m := range makers {
		for _, alg := range algorithms {
			for _, auth := range []string{"empty", "key", "parent"} {
				k := m.make(t, w, alg, auth)
				run(m, alg, auth, k, "")
				if auth == "empty" {
					later[m.name+string(alg)] = k
				}
			}
		}
	}
	w.tpm.Run("tpm2_changeauth", "-c", "o", ownerSecret)
	for _, m := range makers {
		for _, alg := range algorithms {
			run(m, alg, "owner", later[m.name+string(alg)], ownerSecret)
		}
	}
	w.tpm.CheckEmpty()
	if n := failedTries(w.tpm); n != 0 {
		t.Errorf("%d lock-out tries were burnt", n)
	}
	t.Logf("%d sessions", passed)
}

// failedTries reads the TPM's lock-out counter.
func failedTries(s *tpmtest.TPM) (n int) {
	_, after, _ := strings.Cut(s.Run("tpm2_getcap", "properties-variable"), "TPM2_PT_LOCKOUT_COUNTER: ")
	if _, err := fmt.Sscanf(after, "%v", &n); err != nil {
		panic(err)
	}
	return n
}

// persist makes a key file's key persistent.
func (w *tpmSite) persist(f *tpm.KeyFile, handle, owner string) {
	w.t.Helper()
	must(w.t, os.WriteFile(filepath.Join(w.tpm.Dir(), "k.pub"), tpm2.Marshal(tpm2.New2B(f.Public)), 0o600))
	must(w.t, os.WriteFile(filepath.Join(w.tpm.Dir(), "k.priv"), tpm2.Marshal(tpm2.TPM2BPrivate{Buffer: f.Private}), 0o600))
	parent, secret := fmt.Sprintf("%#x", uint32(f.Parent)), parentSecret
	if f.Parent == tpm2.TPMRHOwner {
		parent, secret = "p.ctx", ""
		w.tpm.Run(append([]string{"tpm2_createprimary", "-C", "o", "-P", owner, "-c", parent}, h2...)...)
		w.tpm.Clear()
	}
	w.tpm.Run("tpm2_load", "-C", parent, "-P", secret, "-u", "k.pub", "-r", "k.priv", "-c", "k.ctx")
	w.tpm.Clear()
	w.tpm.Run("tpm2_evictcontrol", "-C", "o", "-P", owner, "-c", "k.ctx", handle)
	w.tpm.Clear()
}
