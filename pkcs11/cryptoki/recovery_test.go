//go:build cgo

package cryptoki_test

import (
	"context"
	"crypto"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// behind returns the module as another part of the process has it, and a
// session on the token.
func behind(t *testing.T, slot uint64) (*p11.Ctx, p11.SessionHandle) {
	t.Helper()
	ctx := p11.New(modulePath(t))
	s, err := ctx.OpenSession(uint(slot), p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, s
}

func TestLogoutBehindOurBack(t *testing.T) {
	newHSM(t, "logout")
	m := load(t)
	var asked atomic.Int64
	k := generate(t, m, "pkcs11:token=logout;object=k", "ec-p256", options(&asked))
	ctx, s := behind(t, k.Token().SlotID)
	defer ctx.CloseSession(s)
	for i := range 3 {
		checkSigns(t, k)
		if err := ctx.Logout(s); err != nil {
			t.Fatal(err)
		}
		checkSigns(t, k)
		if n := asked.Load(); n != int64(i+2) {
			t.Errorf("after %d logouts asked %d times", i+1, n)
		}
	}
}

// With ReusePIN the person is asked once.
func TestLogoutWithReusedPIN(t *testing.T) {
	newHSM(t, "reuse")
	m := load(t)
	var asked atomic.Int64
	o := options(&asked)
	o.ReusePIN = true
	k := generate(t, m, "pkcs11:token=reuse;object=k", "ec-p256", o)
	ctx, s := behind(t, k.Token().SlotID)
	defer ctx.CloseSession(s)
	asked.Store(0)
	for range 3 {
		if err := ctx.Logout(s); err != nil {
			t.Fatal(err)
		}
		checkSigns(t, k)
	}
	if n := asked.Load(); n > 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestSessionsClosedBehindOurBack(t *testing.T) {
	newHSM(t, "closed")
	m := load(t)
	k := generate(t, m, "pkcs11:token=closed;object=k", "rsa-2048", options(nil))
	ctx := p11.New(modulePath(t))
	for range 3 {
		if err := ctx.CloseAllSessions(uint(k.Token().SlotID)); err != nil {
			t.Fatal(err)
		}
		checkSigns(t, k)
	}
}

// Signatures go on while logins and sessions are lost under them.
func TestRecoveryUnderLoad(t *testing.T) {
	newHSM(t, "load")
	m := load(t)
	k := generate(t, m, "pkcs11:token=load;object=k", "ec-p256", options(nil))
	ctx, s := behind(t, k.Token().SlotID)
	defer ctx.CloseSession(s)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := k.SignMessage(nil, []byte("x"), crypto.SHA256); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 5 {
		time.Sleep(100 * time.Millisecond)
		if err := ctx.Logout(s); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

// Each class of error is mended once.
func TestErrorClasses(t *testing.T) {
	s := newShim(t, "class")
	var asked atomic.Int64
	k := generate(t, s.Module, "pkcs11:token=class;object=k", "ec-p256", options(&asked))
	checkSigns(t, k)
	sign := func() error {
		_, err := k.SignMessage(nil, []byte("x"), crypto.SHA256)
		return err
	}
	for _, test := range []struct {
		name, words   string
		logins, finds int
	}{
		{"handle", "fail=C_SignInit:60:1", 0, 1},
		{"object handle", "fail=C_SignInit:82:1", 0, 1},
		{"not logged in", "fail=C_SignInit:101:1", 1, 1},
		{"device removed", "fail=C_Sign:32:1", 1, 1},
		{"token not present", "fail=C_SignInit:e0:1", 1, 1},
		{"device error", "fail=C_Sign:30:1", 0, 1},
		{"operation active", "fail=C_SignInit:90:1", 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.misbehave(t, test.words)
			asked.Store(0)
			if err := sign(); err != nil {
				t.Fatal(err)
			}
			if logins := s.calls(t, "C_Login"); logins != test.logins || asked.Load() != int64(test.logins) {
				t.Errorf("%d logins, asked %d times", logins, asked.Load())
			}
			if finds := s.calls(t, "C_FindObjectsInit"); finds < test.finds || finds > 3*test.finds {
				t.Errorf("%d searches", finds)
			}
			if n := s.calls(t, "C_SignInit"); n != 2 {
				t.Errorf("%d tries", n)
			}
			s.misbehave(t, "")
			if err := sign(); err != nil || s.calls(t, "C_FindObjectsInit") != 0 {
				t.Errorf("afterwards: %v, %d searches", err, s.calls(t, "C_FindObjectsInit"))
			}
		})
	}
}

func TestLastingErrors(t *testing.T) {
	for code, is := range map[string]error{
		"30": pkcs11.ErrModuleFailed, "5": pkcs11.ErrModuleFailed, "190": pkcs11.ErrModuleFailed,
		"32": signer.ErrTokenGone, "e0": signer.ErrTokenGone,
	} {
		t.Run(code, func(t *testing.T) {
			s := newShim(t, "lasting")
			k := generate(t, s.Module, "pkcs11:token=lasting;object=k", "ec-p256", options(nil))
			s.misbehave(t, "fail=C_Sign:"+code+":9")
			_, err := k.SignMessage(nil, []byte("x"), crypto.SHA256)
			checkError(t, err, is)
			if n := s.calls(t, "C_SignInit"); n > 2 {
				t.Errorf("%d tries", n)
			}
			s.misbehave(t, "")
			_, err = k.SignMessage(nil, []byte("x"), crypto.SHA256)
			if lost := code == "190"; lost != errors.Is(err, pkcs11.ErrModuleFailed) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestResetAndHealth(t *testing.T) {
	newHSM(t, "health")
	m := load(t)
	k := generate(t, m, "pkcs11:token=health;object=k", "ec-p256", options(nil))
	m.Reset()
	if err := m.Health(t.Context()); err != nil {
		t.Error(err)
	}
	checkNoSessions(t)
	checkSigns(t, k)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.SignContext(cancelled, make([]byte, 32), crypto.SHA256); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	k.Close()
	if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("a closed key signs")
	}
}

// One who waits for a session gives up with the context.
func TestWaitersHonourTheContext(t *testing.T) {
	newHSM(t, "wait")
	m := load(t)
	o := options(nil)
	o.MaxSessions = 1
	generate(t, m, "pkcs11:token=wait;object=k", "rsa-4096", options(nil)).Close()
	k := open(t, m, "pkcs11:token=wait;object=k", nil, o)
	var wg sync.WaitGroup
	var late atomic.Int64
	for range 16 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			if _, err := k.SignContext(ctx, make([]byte, 32), crypto.SHA256); errors.Is(err, context.DeadlineExceeded) {
				late.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if late.Load() == 0 {
		t.Error("no one had to give up")
	}
	checkSigns(t, k)
}

// A token with few sessions makes signatures wait, not fail.
func TestFewSessions(t *testing.T) {
	for _, most := range []string{"1", "2", "3"} {
		t.Run(most, func(t *testing.T) {
			s := newShim(t, "few")
			generate(t, s.Module, "pkcs11:token=few;object=k", "ec-p256", options(nil)).Close()
			s.misbehave(t, "sessions="+most)
			k := open(t, s.Module, "pkcs11:token=few;object=k", nil, options(nil))
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 50 {
						if _, err := k.SignMessage(nil, []byte("x"), crypto.SHA256); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			checkSigns(t, k)
		})
	}
}
