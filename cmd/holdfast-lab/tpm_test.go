package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func startTPM(t *testing.T) *lab {
	t.Helper()
	return start(t, func(o *options) { o.keyType = "tpm" })
}

// loaded returns what is loaded in the lab's TPM.
func loaded(t *testing.T, l *lab) string {
	t.Helper()
	tpmtest.Tool(t, "tpm2_getcap", "tpm2-tools libtss2-tcti-swtpm0")
	out, errs, code := runIn(t, l, "sh", "-c", "tpm2_getcap handles-transient && tpm2_getcap handles-loaded-session")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	return strings.TrimSpace(out)
}

func TestTPMManyClients(t *testing.T) {
	l := startTPM(t)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 3 {
				if out, errs, code := runIn(t, l, credentialProcess(l)...); code != 0 || !strings.Contains(out, `"AccessKeyId":"ASIA`) {
					t.Errorf("exit code %d: %s%s", code, out, errs)
				}
			}
		})
	}
	clients.Wait()
	if left := loaded(t, l); left != "" {
		t.Errorf("left in the TPM: %s", left)
	}
	// All of them, and the lab, agreed on one lock, and it lies in the lab.
	locks, err := filepath.Glob(l.path("holdfast-tpm-*.lock"))
	if err != nil || len(locks) != 1 {
		t.Fatalf("locks: %v %v", locks, err)
	}
	if _, err := os.Stat(filepath.Join("/run/lock", filepath.Base(locks[0]))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lock among the system's: %v", err)
	}
}

func TestTPMKilledClients(t *testing.T) {
	l := startTPM(t)
	env := environ(os.Environ(), l.variables())
	args := credentialProcess(l)
	for range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(30*time.Millisecond))))
		cmd := exec.CommandContext(ctx, program(args[0]), args[1:]...) // killed with SIGKILL
		cmd.Env = env
		_ = cmd.Run() // it may have come to its end
		cancel()
	}
	if out, errs, code := runIn(t, l, args...); code != 0 {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if left := loaded(t, l); left != "" {
		t.Errorf("left in the TPM: %s", left)
	}
}

// The lab's TPM is there for tpm2-tss as well as for holdfast.
func TestTPMTools(t *testing.T) {
	l := startTPM(t)
	tpmtest.Tool(t, "openssl", "openssl tpm2-openssl")
	out, errs, code := runIn(t, l, "sh", "-euc", `
cd "$HOLDFAST_LAB_DIR"
openssl req -provider tpm2 -provider default -new -key "$HOLDFAST_LAB_PRIVATE_KEY" -subj /CN=device-1 -out by-openssl.csr
openssl req -in by-openssl.csr -noout -verify -subject
openssl genpkey -provider tpm2 -algorithm EC -pkeyopt group:P-256 -out by-openssl.pem
tpm2_flushcontext -t
holdfast csr --private-key by-openssl.pem --subject CN=device-2 --out by-holdfast.csr
openssl req -in by-holdfast.csr -noout -verify -subject`)
	if code != 0 || !strings.Contains(out, "device-1") || !strings.Contains(out, "device-2") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func TestTPMPathIsTooLong(t *testing.T) {
	isolate(t)
	tmp := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd, stdout, stderr := labCommand("--key", "tpm", "--", "true")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, cmd); code != exitFailure || !strings.Contains(stderr.String(), "a socket's path has at most") ||
		!strings.Contains(stderr.String(), "holdfast-lab: hint: set TMPDIR") || stdout.Len() > 0 {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestWithoutCgo(t *testing.T) {
	isolate(t)
	plain := filepath.Join(t.TempDir(), "holdfast-lab")
	build := exec.Command("go", "build", "-o", plain, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for key, want := range map[string]string{
		"tpm": "apt-get install gcc libc6-dev libssl-dev", "pkcs11": "build it with CGO_ENABLED=1", "file": "",
	} {
		cmd := exec.Command(plain, "--quiet", "--holdfast", program("holdfast"), "--key", key, "--", "true")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		if (err == nil) != (want == "") || !strings.Contains(stderr.String(), want) || want != "" && cmd.ProcessState.ExitCode() != exitFailure {
			t.Errorf("%s: %v: %s", key, err, &stderr)
		}
	}
}
