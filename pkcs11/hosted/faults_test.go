//go:build linux

package hosted_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

// A fault and what becomes of the call it meets.
type fault struct {
	name   string
	faults string
	want   error  // nil: the call succeeds all the same
	pins   int    // most PINs presented, over all processes
	key    string // P-256 unless set
}

// slow is how long a call may hang in these tests.
const slow = 1500 * time.Millisecond

// TestFaultsWhileSigning lets the module fail under an open key.
func TestFaultsWhileSigning(t *testing.T) {
	cases := []fault{
		{name: "none", pins: 1},
		{name: "crash once", faults: "C_Sign 1 segv", pins: 2},
		{name: "abort once", faults: "C_Sign 1 abort", pins: 2},
		{name: "exit once", faults: "C_Sign 1 exit 7", pins: 2},
		{name: "exit 0 once", faults: "C_SignInit 1 exit 0", pins: 2},
		{name: "hang once", faults: "C_Sign 1 hang", pins: 2},
		{name: "slow, but in time", faults: "C_Sign * hang 300", pins: 1},
		{name: "crash always", faults: "C_Sign * segv", want: pkcs11.ErrModuleFailed, pins: 2},
		{name: "abort always", faults: "C_Sign * abort", want: pkcs11.ErrModuleFailed, pins: 2},
		{name: "exit always", faults: "C_SignInit * exit 3", want: pkcs11.ErrModuleFailed, pins: 2},
		{name: "hang always", faults: "C_Sign * hang", want: pkcs11.ErrModuleFailed, pins: 2},
		{name: "logged out behind the back", faults: "C_SignInit 1 logout", pins: 2},
		{name: "token away for a moment", faults: "C_SignInit 1 removed\nC_GetSlotList 1 removed\nC_GetTokenInfo 1 removed", pins: 2},
		{name: "token away", faults: "* * removed", want: signer.ErrTokenGone, pins: 1},
		{name: "short r and s", faults: "C_Sign * short", pins: 1, key: "ec-p521"},
		{name: "DER already", faults: "C_Sign * der", pins: 1},
		{name: "wrong signature, which the caller checks", faults: "C_Sign * flip", want: errWrong, pins: 1},
		{name: "junk on stdout and stderr", faults: "C_Sign * print 300000", pins: 1},
		{name: "forks a child", faults: "C_Sign 1 fork", pins: 1},
		{name: "forks a child and crashes", faults: "C_SignInit 1 fork\nC_Sign 1 segv", pins: 2},
		{name: "length too large", faults: "C_Sign * length 0x7fffffff", want: errAny, pins: 2},
		{name: "length zero", faults: "C_Sign * length 0", want: errAny, pins: 2},
		{name: "length odd", faults: "C_Sign * length 63", want: errAny, pins: 2},
		{name: "hangs in C_Finalize", faults: "C_Finalize * hang", pins: 1},
		{name: "crashes in C_Finalize", faults: "C_Finalize * segv", pins: 1},
	}
	for _, c := range []struct {
		code   string
		always error
		pins   int
	}{
		{"CKR_USER_NOT_LOGGED_IN", errAny, 3},
		{"CKR_KEY_HANDLE_INVALID", errAny, 2},
		{"CKR_OBJECT_HANDLE_INVALID", errAny, 2},
		{"CKR_SESSION_HANDLE_INVALID", signer.ErrTokenGone, 4},
		{"CKR_SESSION_CLOSED", signer.ErrTokenGone, 4},
		{"CKR_DEVICE_REMOVED", signer.ErrTokenGone, 4},
		{"CKR_TOKEN_NOT_PRESENT", signer.ErrTokenGone, 4},
		{"CKR_CRYPTOKI_NOT_INITIALIZED", pkcs11.ErrModuleFailed, 2},
		{"CKR_DEVICE_ERROR", pkcs11.ErrModuleFailed, 2},
		{"CKR_GENERAL_ERROR", pkcs11.ErrModuleFailed, 2},
		{"CKR_FUNCTION_FAILED", pkcs11.ErrModuleFailed, 2},
		{"CKR_DEVICE_MEMORY", pkcs11.ErrModuleFailed, 2},
		{"CKR_OPERATION_ACTIVE", pkcs11.ErrModuleFailed, 2},
	} {
		for _, f := range []string{"C_SignInit", "C_Sign"} {
			cases = append(cases,
				fault{name: f + " " + c.code + " once", faults: f + " 1 return " + c.code, pins: 2},
				fault{name: f + " " + c.code + " always", faults: f + " * return " + c.code, want: c.always, pins: c.pins})
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			algorithm := "ec-p256"
			if c.key != "" {
				algorithm = c.key
			}
			r := newRig(t).withKey(algorithm)
			r.timeout = slow
			h := r.start(built.faulty)
			k, err := h.OpenKey(t.Context(), r.uri, nil, r.options(userPIN))
			if err != nil {
				t.Fatal(err)
			}
			r.arm(strings.Split(c.faults, "\n")...)
			begin := time.Now()
			err = checkSignature(k)
			c.judge(t, r, err, time.Since(begin))
			c.end(t, r, h)
		})
	}
}

// TestFaultsWhileOpening lets the module fail before there is a key.
func TestFaultsWhileOpening(t *testing.T) {
	for _, c := range []fault{
		{name: "C_Initialize crashes once", faults: "C_Initialize 1 segv", pins: 1},
		{name: "C_Initialize crashes", faults: "C_Initialize * segv", want: pkcs11.ErrModuleFailed},
		{name: "C_Initialize hangs once", faults: "C_Initialize 1 hang", pins: 1},
		{name: "C_Initialize hangs", faults: "C_Initialize * hang", want: pkcs11.ErrModuleFailed},
		{name: "C_Initialize fails", faults: "C_Initialize * return CKR_DEVICE_ERROR", want: pkcs11.ErrModuleFailed},
		{name: "C_GetSlotList hangs once", faults: "C_GetSlotList 1 hang", pins: 1},
		{name: "C_GetSlotList fails once", faults: "C_GetSlotList 1 return CKR_GENERAL_ERROR", pins: 1},
		{name: "C_GetSlotList lies", faults: "C_GetSlotList * length 0x7fffffffffffffff", want: errAny},
		{name: "C_GetSlotList is empty", faults: "* * removed", want: signer.ErrTokenNotFound},
		{name: "C_OpenSession crashes once", faults: "C_OpenSession 1 segv", pins: 1},
		{name: "C_FindObjects lies", faults: "C_FindObjects * length 0x7fffffff", want: errAny, pins: 1},
		{name: "C_GetAttributeValue lies", faults: "C_GetAttributeValue * length 0x7fffffffffff", want: errAny, pins: 1},
		{name: "wrong signature at the trial", faults: "C_Sign * flip", want: errAny, pins: 1},
		{name: "PIN incorrect", faults: "C_Login * return CKR_PIN_INCORRECT", want: signer.ErrPINIncorrect, pins: 1},
		{name: "PIN locked", faults: "C_Login * return CKR_PIN_LOCKED", want: signer.ErrPINLocked, pins: 1},
		{name: "C_Login crashes", faults: "C_Login 1 segv", want: pkcs11.ErrModuleFailed, pins: 1},
		{name: "C_Login hangs", faults: "C_Login * hang", want: pkcs11.ErrModuleFailed, pins: 1},
		{name: "C_Login refuses, then crashes", faults: "C_Login 1 fail CKR_PIN_INCORRECT\nC_CloseSession 1 segv", want: errAny, pins: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t).withKey("ec-p256")
			r.timeout = slow
			r.arm(strings.Split(c.faults, "\n")...)
			h := r.start(built.faulty)
			begin := time.Now()
			k, err := h.OpenKey(t.Context(), r.uri, nil, r.options(userPIN))
			if err == nil {
				err = checkSignature(k)
			}
			c.judge(t, r, err, time.Since(begin))
			c.end(t, r, h)
		})
	}
}

// errAny is any error but a wrong signature that got through.
var errAny = errors.New("any")

func (c *fault) judge(t *testing.T, r *rig, err error, took time.Duration) {
	t.Helper()
	t.Logf("%v, %d PINs, %d hosts: %v", took.Round(time.Millisecond), r.presented(), len(r.pids()), err)
	if err != nil {
		clearLine(t, err)
	}
	switch {
	case c.want == errAny && err != nil && !errors.Is(err, errWrong):
	case !errors.Is(err, c.want):
		t.Errorf("got %v, want %v", err, c.want)
	}
	if took > 2*slow+2*time.Second {
		t.Errorf("took %v", took)
	}
	if n := r.presented(); n > c.pins {
		t.Errorf("%d PINs were presented, want at most %d", n, c.pins)
	}
}

func (c *fault) end(t *testing.T, r *rig, h *hosted.Host) {
	t.Helper()
	begin := time.Now()
	h.Close()
	if took := time.Since(begin); took > hosted.DefaultCloseTimeout+time.Second {
		t.Errorf("Close took %v", took)
	}
	if text := r.log.String(); len(text) > 600_000 || strings.Contains(text, userPIN) {
		t.Errorf("the log is %d bytes, or holds the PIN", len(text))
	}
}
