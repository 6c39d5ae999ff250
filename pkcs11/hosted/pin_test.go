//go:build linux

package hosted_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// TestRestartLoop runs a program with a wrong PIN again and again.
func TestRestartLoop(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	run := func(pin string) string {
		out, _ := r.helper("sign", pin).CombinedOutput()
		if strings.Contains(string(out), pin) {
			t.Errorf("the PIN is in the output:\n%s", out)
		}
		return string(out)
	}
	for i := range 5 {
		out := run(wrongPIN)
		want := "CKR_PIN_INCORRECT"
		if i > 0 {
			want = "it is not tried again for"
		}
		if !strings.Contains(out, want) {
			t.Errorf("run %d: %s", i, out)
		}
	}
	if n := r.presented(); n != 1 {
		t.Fatalf("%d PINs reached the token, want 1", n)
	}
	checkNotes(t, r)
	if out := run(userPIN); out != "ready\n" {
		t.Errorf("the right PIN: %s", out)
	}
	if n := r.presented(); n != 2 {
		t.Errorf("%d PINs reached the token, want 2", n)
	}
	if left, _ := filepath.Glob(filepath.Join(r.state, "*")); len(left) != 0 {
		t.Errorf("a correct login left %v", left)
	}
	if out := run(wrongPIN); !strings.Contains(out, "CKR_PIN_INCORRECT") {
		t.Errorf("after a correct login: %s", out)
	}
}

// TestRestartLoopCrash: the same, if the module crashes on the PIN.
func TestRestartLoopCrash(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	r.arm("C_Login * segv")
	for range 3 {
		out, _ := r.helper("sign", userPIN).CombinedOutput()
		t.Logf("%s", out)
	}
	if n := r.presented(); n != 1 {
		t.Errorf("%d PINs reached the token, want 1", n)
	}
}

func checkNotes(t *testing.T, r *rig) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(r.state, "*"))
	info, err := os.Stat(r.state)
	if err != nil || info.Mode().Perm() != 0o700 || len(files) != 1 {
		t.Fatalf("%v, %v, %v", info, err, files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) != 4 || len(fields[3]) != 3 || strings.Contains(string(text), wrongPIN) {
		t.Errorf("the note is %q", text)
	}
}

// TestWrongPINOneProcess: asked in vain, the Host does not present it again,
// and takes another.
func TestWrongPINOneProcess(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	h := r.start(built.faulty)
	for range 4 {
		_, err := h.OpenKey(t.Context(), r.uri, nil, r.options(wrongPIN))
		if !errors.Is(err, signer.ErrPINIncorrect) {
			t.Fatal(err)
		}
		clearLine(t, err)
	}
	r.arm("C_GetSlotList 1 segv") // and neither does the next child
	if _, err := h.OpenKey(t.Context(), r.uri, nil, r.options(wrongPIN)); !errors.Is(err, signer.ErrPINIncorrect) {
		t.Fatal(err)
	}
	if n := r.presented(); n != 1 {
		t.Errorf("%d PINs reached the token, want 1", n)
	}
	k, err := h.OpenKey(t.Context(), r.uri, nil, r.options(userPIN))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkSignature(k); err != nil {
		t.Error(err)
	}
}

// TestPINFunc: its errors keep their identity, the time it takes does not
// count, and once the PIN is known it is not asked for again.
func TestPINFunc(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	r.timeout = slow
	h := r.start(built.faulty)
	o := r.options(userPIN)
	mine := errors.New("no terminal")
	o.PIN = func(context.Context, pkcs11.Token) (signer.Secret, error) { return signer.Secret{}, mine }
	if _, err := h.OpenKey(t.Context(), r.uri, nil, o); !errors.Is(err, mine) {
		t.Errorf("got %v", err)
	}
	o.PIN = nil
	if _, err := h.OpenKey(t.Context(), r.uri, nil, o); !errors.Is(err, signer.ErrPINRequired) {
		t.Errorf("got %v", err)
	}
	asked := 0
	o.PIN = func(context.Context, pkcs11.Token) (signer.Secret, error) {
		asked++
		time.Sleep(slow + 300*time.Millisecond)
		return signer.NewSecret([]byte(userPIN)), nil
	}
	k, err := h.OpenKey(t.Context(), r.uri, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	r.arm("C_Sign 1 segv")
	if err := checkSignature(k); err != nil || asked != 1 {
		t.Errorf("%v; asked %d times", err, asked)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	h2 := r.start(built.faulty)
	if _, err := h2.OpenKey(ctx, r.uri, nil, o); err == nil {
		t.Error("a PIN that came after the deadline was used")
	}
}

// TestAlwaysAuthenticate: a PIN for each signature, or the login's.
func TestAlwaysAuthenticate(t *testing.T) {
	r := newRig(t).withKey("ec-p256")
	h := r.start(built.faulty)
	uri := r.uri.With(pkcs11.AttrObject, "careful")
	o := r.options(userPIN)
	o.AlwaysAuthenticate = true
	k, err := h.GenerateKey(t.Context(), uri, "ec-p256", o)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	asked := 0
	o.KeyPIN = func(context.Context, pkcs11.Token, *pkcs11.URI) (signer.Secret, error) {
		asked++
		return signer.NewSecret([]byte(userPIN)), nil
	}
	for reuse, want := range map[bool]int{false: 2, true: 0} {
		o.ReusePIN = reuse
		if k, err = h.OpenKey(t.Context(), uri, nil, o); err != nil {
			t.Fatal(err)
		}
		asked = 0
		for range 2 {
			if err := checkSignature(k); err != nil {
				t.Error(err)
			}
		}
		if asked != want {
			t.Errorf("ReusePIN %t: asked %d times, want %d", reuse, asked, want)
		}
		k.Close()
	}
}
