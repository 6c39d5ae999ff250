//go:build linux

package hosted_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

// helpers are what this test program does in a process of its own.
var helpers = map[string]func() int{
	"sign-and-wait": func() int { return helper(true) },
	"sign":          func() int { return helper(false) },
}

// helper is a small holdfast: it opens the rig's key and signs.
func helper(wait bool) int {
	env := os.Getenv
	h, err := hosted.Start(context.Background(), hosted.Config{Module: env("HOSTED_TEST_MODULE"), Program: env("HOSTED_TEST_PROGRAM"), StateDir: env("HOSTED_TEST_STATE")})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer h.Close()
	uri, err := pkcs11.Parse("pkcs11:token=rig;object=key?pin-source=" + env("HOSTED_TEST_PIN_FILE"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	k, err := h.OpenKey(context.Background(), uri, nil, hosted.Options{})
	if err == nil {
		err = checkSignature(k)
	}
	if err != nil {
		fmt.Println(err)
		fmt.Println(signer.Hint(err))
		return 1
	}
	fmt.Println("ready")
	if wait {
		time.Sleep(time.Minute)
	}
	return 0
}

func (r *rig) helper(name, pin string) *exec.Cmd {
	r.t.Helper()
	file := filepath.Join(r.dir, "pin")
	if err := os.WriteFile(file, []byte(pin+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(r.env, "HOSTED_TEST_HELPER="+name, "HOSTED_TEST_MODULE="+built.faulty, "HOSTED_TEST_PROGRAM="+built.host,
		"HOSTED_TEST_STATE="+r.state, "HOSTED_TEST_PIN_FILE="+file)
	return cmd
}

// TestParentKilled: a holdfast killed at once leaves no host.
func TestParentKilled(t *testing.T) {
	for _, faults := range []string{"", "C_GetSlotInfo * hang"} {
		r := newRig(t).withKey("ec-p256")
		cmd := r.helper("sign-and-wait", userPIN)
		if faults != "" {
			r.arm(faults)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for len(r.pids()) == 0 || faults == "" && r.presented() == 0 {
			if time.Now().After(deadline) {
				t.Fatal("no host came up")
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // "signal: killed"
		r.nothingLeft()
	}
}

// TestHostIsBare: what the host process has of its environment, and what it
// shows of the PIN.
func TestHostIsBare(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	leaked, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer leaked.Close()
	cmd := r.helper("sign-and-wait", userPIN)
	cmd.Env = append(cmd.Env, "EXTRA_ONE=1", "VENDOR_CONF=2", "VENDOR_PIN="+userPIN, "OTHER=3")
	cmd.ExtraFiles = []*os.File{leaked, leaked, leaked, leaked}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	ready := make([]byte, 6)
	if _, err := stdout.Read(ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("%q, %v", ready, err)
	}
	pid := r.pids()[0]
	proc := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatalf("as root: %v", err)
		}
		return string(text)
	}
	env := proc("environ")
	for _, bad := range []string{userPIN, "AWS_", "HOLDFAST_", "PATH=", "OTHER=", "VENDOR_PIN", "SOFTHSM2_USER_PIN", "HOSTED_TEST"} {
		if strings.Contains(env, bad) {
			t.Errorf("environment holds %s", bad)
		}
	}
	for _, good := range []string{"SOFTHSM2_CONF=", "EXTRA_ONE=1", "VENDOR_CONF=2"} {
		if !strings.Contains(env, good) {
			t.Errorf("environment lacks %s", good)
		}
	}
	if strings.Contains(proc("cmdline"), userPIN) {
		t.Error("the PIN is an argument")
	}
	var core bool
	for line := range strings.Lines(proc("limits")) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") {
			core = f[4] == "0" && f[5] == "0"
		}
	}
	if !core {
		t.Error("core files are possible")
	}
	fields := strings.Fields(proc("stat"))
	if fields[4] != fmt.Sprint(pid) || fields[5] != fmt.Sprint(pid) {
		t.Errorf("group %s, session %s: not its own", fields[4], fields[5])
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	nulls := 0
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); target == os.DevNull {
			nulls++
		}
	}
	if nulls != 1 { // its stdin
		t.Errorf("%d descriptors of /dev/null: inherited ones are open", nulls)
	}
}

func TestByHand(t *testing.T) {
	newRig(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "started by holdfast, not by hand"},
		{[]string{"--protocol=1"}, 2, "pipes are missing"},
		{[]string{"--protocol=99"}, 2, "same release"},
		{[]string{"sign"}, 2, "not by hand"},
		{[]string{"--version"}, 0, "protocol 1"},
		{[]string{"--help"}, 0, "nothing to run by hand"},
	} {
		cmd := exec.Command(built.host, c.args...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("%q: exit code %d, %s", c.args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func TestNoHost(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := hosted.Start(t.Context(), hosted.Config{Module: "/nowhere.so"})
	if !errors.Is(err, hosted.ErrNoHost) || !strings.Contains(err.Error(), filepath.Dir(os.Args[0])) || signer.Hint(err) == "" {
		t.Errorf("%v; hint: %s", err, signer.Hint(err))
	}
}

func TestModuleErrors(t *testing.T) {
	r := newRig(t)
	text := filepath.Join(r.dir, "text.so")
	if err := os.WriteFile(text, []byte("not a module"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"/nowhere.so": pkcs11.ErrModuleNotFound, text: pkcs11.ErrModuleInvalid} {
		h := r.start(path)
		for range 2 {
			_, err := h.Tokens(t.Context())
			if !errors.Is(err, want) || signer.Hint(err) == "" {
				t.Errorf("%s: %v, want %v", path, err, want)
			}
		}
	}
}

// TestConcurrent signs from many goroutines while the module crashes now and
// then.
func TestConcurrent(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	h := r.start(built.faulty)
	k, err := h.OpenKey(t.Context(), r.uri, nil, r.options(userPIN))
	if err != nil {
		t.Fatal(err)
	}
	r.arm("C_Sign 100 segv")
	digest := sha256.Sum256([]byte("holdfast"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				sig, err := k.Sign(nil, digest[:], crypto.SHA256)
				if err == nil {
					err = signer.Verify(k.Public(), []byte("holdfast"), sig, crypto.SHA256)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(r.pids()); n != 2 {
		t.Errorf("%d hosts, want 2", n)
	}
	h.Close()
	if _, err := k.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, hosted.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestHungCallAlone: a call that hangs holds up no other, and its caller's
// deadline holds.
func TestHungCallAlone(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	h := r.start(built.faulty)
	k, err := h.OpenKey(t.Context(), r.uri, nil, r.options(userPIN))
	if err != nil {
		t.Fatal(err)
	}
	r.arm("C_GetSlotList 1 hang 2000")
	hung := make(chan error, 1)
	go func() {
		_, err := h.Tokens(t.Context())
		hung <- err
	}()
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	if err := checkSignature(k); err != nil || time.Since(begin) > time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	if err := <-hung; err != nil {
		t.Error(err)
	}
	r.arm("C_Sign * hang")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin = time.Now()
	digest := sha256.Sum256([]byte("holdfast"))
	_, err = k.SignContext(ctx, digest[:], crypto.SHA256)
	if took := time.Since(begin); err == nil || took > 1200*time.Millisecond {
		t.Errorf("%v after %v", err, took)
	}
	if hosts := len(r.pids()); hosts != 2 {
		t.Errorf("%d hosts, want 2: one try after the first", hosts)
	}
}

// TestBrief: the host goes after each signature, another comes for the next,
// and nobody is asked for the PIN again.
func TestBrief(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	cfg := r.config(built.faulty)
	cfg.Brief = true
	h, err := hosted.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	asked := 0
	k, err := h.OpenKey(t.Context(), r.uri, nil, hosted.Options{PIN: func(context.Context, pkcs11.Token) (signer.Secret, error) {
		asked++
		return signer.NewSecret([]byte(userPIN)), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		if err := checkSignature(k); err != nil {
			t.Fatal(err)
		}
		pids := r.pids()
		if len(pids) != n {
			t.Fatalf("signature %d: hosts %v", n, pids)
		}
		for start := time.Now(); syscall.Kill(pids[n-1], 0) == nil; time.Sleep(time.Millisecond) {
			if time.Since(start) > 5*time.Second {
				t.Fatalf("after signature %d its host stays", n)
			}
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times for the PIN", asked)
	}
	if err := errors.Join(k.Close(), h.Close()); err != nil {
		t.Error(err)
	}
}
