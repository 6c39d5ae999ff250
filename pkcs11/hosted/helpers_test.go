//go:build linux

package hosted_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

const (
	userPIN  = "sesame-4711"
	wrongPIN = "sesame-0815"
)

// buildFlags are those of this test that the host is built with too.
var buildFlags []string

// built holds what TestMain built: the host and the faulty module.
var built struct{ host, faulty, err string }

func TestMain(m *testing.M) {
	if f := helpers[os.Getenv("HOSTED_TEST_HELPER")]; f != nil {
		os.Exit(f())
	}
	dir, err := os.MkdirTemp("", "hosted")
	if err != nil {
		panic(err)
	}
	built.host, built.faulty = filepath.Join(dir, "holdfast-pkcs11"), filepath.Join(dir, "faulty.so")
	for _, args := range [][]string{
		append(append([]string{"go", "build", "-o", built.host}, buildFlags...), "../../cmd/holdfast-pkcs11"),
		{"gcc", "-shared", "-fPIC", "-O1", "-o", built.faulty, "../../testdata/pkcs11/faulty.c", "-ldl", "-lpthread"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			built.err += fmt.Sprintf("%v: %v\n%s", args, err, out)
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// A rig is a SoftHSM token behind the faulty module.
type rig struct {
	t        testing.TB
	dir      string // of the module's control files
	state    string
	env      []string
	log      strings.Builder
	uri      *pkcs11.URI
	timeout  time.Duration
	everyPID map[int]bool
}

func softhsm(t testing.TB) string {
	t.Helper()
	path, err := pkcs11.FindModule(nil, "libsofthsm2.so")
	if err == nil {
		_, err = exec.LookPath("softhsm2-util")
	}
	if err != nil {
		t.Fatalf("SoftHSM is missing: apt-get install softhsm2 (%v)", err)
	}
	return path
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if built.err != "" {
		t.Fatalf("apt-get install gcc libc6-dev\n%s", built.err)
	}
	module := softhsm(t)
	root := t.TempDir()
	r := &rig{t: t, dir: filepath.Join(root, "control"), state: filepath.Join(root, "state"), timeout: 10 * time.Second, everyPID: map[int]bool{}}
	tokens, conf := filepath.Join(root, "tokens"), filepath.Join(root, "softhsm2.conf")
	for _, d := range []string{tokens, r.dir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.env = []string{"SOFTHSM2_CONF=" + conf, "FAULTY_MODULE=" + module, "FAULTY_DIR=" + r.dir, hosted.PassVariable + "=FAULTY_*,GORACE,EXTRA_ONE, VENDOR_*", "GORACE=atexit_sleep_ms=0", "PATH=" + os.Getenv("PATH"),
		"AWS_SECRET_ACCESS_KEY=not-for-modules", "HOLDFAST_PIN=" + userPIN, "SOFTHSM2_USER_PIN=" + userPIN}
	cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "rig", "--pin", userPIN, "--so-pin", "12345678")
	cmd.Env = r.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
	var err error
	if r.uri, err = pkcs11.Parse("pkcs11:token=rig;object=key"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.nothingLeft)
	return r
}

// withKey makes a key, and then forgets the calls that took.
func (r *rig) withKey(algorithm string) *rig {
	r.t.Helper()
	h := r.start(built.faulty)
	k, err := h.GenerateKey(r.t.Context(), r.uri, algorithm, r.options(userPIN))
	if err != nil {
		r.t.Fatal(err)
	}
	k.Close()
	h.Close()
	r.arm()
	r.pids()
	if err := os.Remove(filepath.Join(r.dir, "log")); err != nil {
		r.t.Fatal(err)
	}
	return r
}

func (r *rig) config(module string) hosted.Config {
	return hosted.Config{
		Module: module, Program: built.host, CallTimeout: r.timeout, Environment: r.env, StateDir: r.state,
		Logger: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (r *rig) start(module string) *hosted.Host {
	r.t.Helper()
	h, err := hosted.Start(context.Background(), r.config(module))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { h.Close() })
	return h
}

func (r *rig) options(pin string) hosted.Options {
	return hosted.Options{PIN: func(context.Context, pkcs11.Token) (signer.Secret, error) {
		return signer.NewSecret([]byte(pin)), nil
	}}
}

// arm sets the faults. Calls count from here.
func (r *rig) arm(faults ...string) {
	r.t.Helper()
	counts := filepath.Join(r.dir, "counts")
	if info, err := os.Stat(counts); err == nil {
		f, err := os.OpenFile(counts, os.O_WRONLY, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, info.Size())); err != nil {
			r.t.Fatal(err)
		}
		f.Close()
	}
	if err := os.WriteFile(filepath.Join(r.dir, "faults"), []byte(strings.Join(faults, "\n")), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// lines returns the module's log, a call a line.
func (r *rig) lines() [][]string {
	f, err := os.Open(filepath.Join(r.dir, "log"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var all [][]string
	for s := bufio.NewScanner(f); s.Scan(); {
		all = append(all, strings.Fields(s.Text()))
	}
	return all
}

// presented counts the PINs that reached the module.
func (r *rig) presented() int {
	calls := map[string]bool{}
	for _, l := range r.lines() {
		if l[1] == "C_Login" && slices.Contains(l, "pin") {
			calls[l[0]+" "+l[2]] = true
		}
	}
	return len(calls)
}

// pids returns the processes that called the module.
func (r *rig) pids() []int {
	var pids []int
	for _, l := range r.lines() {
		if pid, err := strconv.Atoi(l[0]); err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
			r.everyPID[pid] = true
		}
	}
	return pids
}

// nothingLeft fails if a goroutine, a host, or anything of its group, is there, even as a
// zombie of this process's.
func (r *rig) nothingLeft() {
	r.t.Helper()
	if text := r.log.String(); strings.Contains(text, "DATA RACE") {
		r.t.Errorf("in the host:\n%s", text)
	}
	r.pids()
	var left []string
	for range 20 {
		left = nil
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range stats {
			text, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
			if group, _ := strconv.Atoi(fields[2]); r.everyPID[group] && (fields[0] != "Z" || fields[1] == strconv.Itoa(os.Getpid())) {
				left = append(left, string(text))
			}
		}
		stacks := make([]byte, 1<<20)
		for _, stack := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(stack, "hosted.(*child)") || strings.Contains(stack, "hosted.(*output)") {
				left = append(left, stack)
			}
		}
		if left == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Errorf("left running:\n%s", strings.Join(left, ""))
}

var errWrong = errors.New("a wrong signature got through")

func checkSignature(k crypto.Signer) error {
	digest := sha256.Sum256([]byte("holdfast"))
	sig, err := k.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if pub, ok := k.Public().(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(pub, digest[:], sig) {
		return errWrong
	}
	return nil
}

// clearLine fails unless err is one line that says what failed.
func clearLine(t testing.TB, err error) {
	t.Helper()
	text := err.Error()
	if strings.Contains(text, "\n") || len(text) > 600 || strings.Contains(text, userPIN) || strings.Contains(text, wrongPIN) {
		t.Errorf("not one clear line: %q", text)
	}
}
