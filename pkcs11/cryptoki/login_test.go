//go:build cgo

package cryptoki_test

import (
	"context"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

// A wrong PIN reaches the token once, however often and from wherever it is
// given; the right one is still taken.
func TestWrongPINOnce(t *testing.T) {
	s := newShim(t, "pin")
	generate(t, s.Module, "pkcs11:token=pin;object=k", "ec-p256", options(nil)).Close()
	s.misbehave(t, "")
	for i, u := range []string{"pkcs11:token=pin;object=k", "pkcs11:token=pin;object=k", "pkcs11:token=pin;object=k?pin-value=9999"} {
		_, err := s.OpenKey(t.Context(), uri(t, u), nil, withPIN("9999", nil))
		checkError(t, err, signer.ErrPINIncorrect, "pin")
		if n := s.calls(t, "C_Login"); n != 1 {
			t.Errorf("attempt %d: %d logins reached the token", i, n)
		}
	}
	tokens, err := s.Tokens(t.Context())
	if err != nil || !tokens[0].UserPINCountLow {
		t.Errorf("%+v, %v", tokens, err)
	}
	checkSigns(t, open(t, s.Module, "pkcs11:token=pin;object=k", nil, options(nil)))
	tokens, _ = s.Tokens(t.Context())
	if tokens[0].UserPINCountLow {
		t.Error("the right PIN did not reset the counter")
	}
}

// The refusal outlives the module.
func TestWrongPINAcrossLoads(t *testing.T) {
	newHSM(t, "pin")
	for range 2 {
		m, err := cryptoki.Load(modulePath(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.OpenKey(t.Context(), uri(t, "pkcs11:token=pin"), nil, withPIN("9999", nil))
		checkError(t, err, signer.ErrPINIncorrect)
		m.Close()
	}
	m := load(t)
	_, err := m.OpenKey(t.Context(), uri(t, "pkcs11:token=pin"), nil, withPIN("9999", nil))
	checkError(t, err, signer.ErrPINIncorrect, "not tried again")
}

func TestTokenGuardsItsPIN(t *testing.T) {
	s := newShim(t, "guard")
	generate(t, s.Module, "pkcs11:token=guard;object=k", "ec-p256", options(nil)).Close()
	u := uri(t, "pkcs11:token=guard;object=k")

	s.misbehave(t, "final-try")
	_, err := s.OpenKey(t.Context(), u, nil, options(nil))
	checkError(t, err, signer.ErrPINFinalTry)
	s.misbehave(t, "locked")
	_, err = s.OpenKey(t.Context(), u, nil, options(nil))
	checkError(t, err, signer.ErrPINLocked)
	if n := s.calls(t, "C_Login"); n != 0 {
		t.Errorf("%d logins", n)
	}
	for code, is := range map[string]error{"a4": signer.ErrPINLocked, "a3": signer.ErrPINExpired, "102": signer.ErrPINExpired} {
		s.misbehave(t, "fail=C_Login:"+code+":1")
		_, err = s.OpenKey(t.Context(), u, nil, options(nil))
		checkError(t, err, is)
	}
	// Whatever goes wrong in a login, the PIN is not presented again.
	for _, code := range []string{"30", "5", "6", "101", "60"} {
		s.misbehave(t, "fail=C_Login:"+code+":1")
		if _, err := s.OpenKey(t.Context(), u, nil, options(nil)); err == nil || s.calls(t, "C_Login") != 1 {
			t.Errorf("%s: %d logins, %v", code, s.calls(t, "C_Login"), err)
		}
	}
	s.misbehave(t, "final-try")
	o := options(nil)
	o.AllowFinalTry = true
	checkSigns(t, open(t, s.Module, u.Exact(), nil, o))
}

func TestProtectedAuthenticationPath(t *testing.T) {
	s := newShim(t, "pinpad")
	generate(t, s.Module, "pkcs11:token=pinpad;object=k", "ec-p256", options(nil)).Close()
	s.misbehave(t, "pinpad")
	var asked atomic.Int64
	checkSigns(t, open(t, s.Module, "pkcs11:token=pinpad;object=k", nil, options(&asked)))
	if asked.Load() != 0 {
		t.Error("asked for a PIN that is typed at the token")
	}
}

func TestPINSources(t *testing.T) {
	newHSM(t, "src")
	m := load(t)
	generate(t, m, "pkcs11:token=src;object=k", "ec-p256", options(nil)).Close()
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(userPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	base := uri(t, "pkcs11:token=src;object=k")
	var asked atomic.Int64
	for _, u := range []*pkcs11.URI{base.With("pin-source", "file:"+path), base.With("pin-source", path), base.With("pin-value", userPIN)} {
		k := open(t, m, u.Exact(), nil, withPIN("9999", &asked))
		checkSigns(t, k)
		k.Close()
	}
	if asked.Load() != 0 {
		t.Error("asked for a PIN that the URI brings")
	}
	_, err := m.OpenKey(ctx, base.With("pin-source", path+"x"), nil, options(nil))
	checkError(t, err, os.ErrNotExist)
	_, err = m.OpenKey(ctx, base, nil, cryptoki.Options{})
	checkError(t, err, signer.ErrPINRequired)
	_, err = m.OpenKey(ctx, base, nil, withPIN("", nil))
	checkError(t, err, signer.ErrPINRequired)
	cancelled := errors.New("cancelled by the person")
	_, err = m.OpenKey(ctx, base, nil, cryptoki.Options{PIN: func(context.Context, cryptoki.Token) (signer.Secret, error) {
		return signer.Secret{}, cancelled
	}})
	if !errors.Is(err, cancelled) {
		t.Error(err)
	}
}

// Keys of one token share a login.
func TestOneLogin(t *testing.T) {
	s := newShim(t, "one")
	for _, name := range []string{"a", "b", "c"} {
		generate(t, s.Module, "pkcs11:token=one;object="+name, "ec-p256", options(nil)).Close()
	}
	s.misbehave(t, "")
	var asked atomic.Int64
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() { checkSigns(t, open(t, s.Module, "pkcs11:token=one;object="+name, nil, options(&asked))) })
	}
	wg.Wait()
	if n := s.calls(t, "C_Login"); n != 1 || asked.Load() != 1 {
		t.Errorf("%d logins, asked %d times", n, asked.Load())
	}
}

func TestAlwaysAuthenticate(t *testing.T) {
	for _, kind := range []string{"EC:secp256r1", "rsa:2048"} {
		t.Run(kind, func(t *testing.T) {
			s := newShim(t, "always")
			onToken(t, "always", "--keypairgen", "--key-type", kind, "--label", "k", "--id", "01", "--always-auth")
			u := "pkcs11:token=always;object=k"
			var user, key atomic.Int64
			o := options(&user)
			o.KeyPIN = func(_ context.Context, _ cryptoki.Token, u *pkcs11.URI) (signer.Secret, error) {
				if u.Value("object") != "k" {
					t.Errorf("asked for %s", u)
				}
				key.Add(1)
				return signer.NewSecret([]byte(userPIN)), nil
			}
			k := open(t, s.Module, u, nil, o)
			if !k.Info().AlwaysAuthenticate || key.Load() != 0 {
				t.Errorf("%+v, asked %d times", k.Info(), key.Load())
			}
			checkSigns(t, k)
			if user.Load() != 1 || key.Load() != 3 {
				t.Errorf("asked for the user %d times, for the key %d times", user.Load(), key.Load())
			}
			k.Close()

			user.Store(0)
			o.ReusePIN = true
			k = open(t, s.Module, u, nil, o)
			checkSigns(t, k)
			if user.Load() != 1 || key.Load() != 3 {
				t.Errorf("reused: asked for the user %d times, for the key %d times", user.Load(), key.Load())
			}
			k.Close()

			o = options(nil)
			wrong := withPIN("9999", nil)
			o.KeyPIN = func(ctx context.Context, t cryptoki.Token, _ *pkcs11.URI) (signer.Secret, error) {
				return wrong.PIN(ctx, t)
			}
			k = open(t, s.Module, u, nil, o)
			s.misbehave(t, "")
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					_, err := k.SignMessage(nil, []byte("x"), crypto.SHA256)
					if !errors.Is(err, signer.ErrPINIncorrect) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := s.calls(t, "C_Login"); n != 1 {
				t.Errorf("a wrong PIN reached the token %d times", n)
			}
		})
	}
}
