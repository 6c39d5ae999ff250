//go:build cgo

package cryptoki

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// credentials are where the PIN of a token or a key comes from.
type credentials struct {
	uri *pkcs11.URI
	o   Options
}

func (c credentials) given() bool { return c.uri.HasPIN() || c.o.PIN != nil }

// forUser returns the PIN to log in with; kept is one that ReusePIN kept.
func (c credentials) forUser(ctx context.Context, t Token, kept *signer.Secret) (signer.Secret, error) {
	if pin, ok, err := c.uri.PIN(); ok {
		return pin, err
	}
	if c.o.ReusePIN && kept != nil {
		return *kept, nil
	}
	if c.o.PIN == nil {
		return signer.Secret{}, noPIN(t)
	}
	return checkPIN(t)(c.o.PIN(ctx, t))
}

// forKey returns the PIN for one signature of a key that always authenticates.
func (c credentials) forKey(ctx context.Context, t Token, key *pkcs11.URI, kept *signer.Secret) (signer.Secret, error) {
	if c.o.KeyPIN == nil || c.o.ReusePIN || c.uri.HasPIN() {
		return c.forUser(ctx, t, kept)
	}
	return checkPIN(t)(c.o.KeyPIN(ctx, t, key))
}

func checkPIN(t Token) func(signer.Secret, error) (signer.Secret, error) {
	return func(pin signer.Secret, err error) (signer.Secret, error) {
		if err == nil && pin.Empty() {
			return pin, noPIN(t)
		}
		return pin, err
	}
}

func noPIN(t Token) error {
	return signer.WithHint(fmt.Errorf("%s: %w", t, signer.ErrPINRequired),
		"name a file that holds the PIN: add ?pin-source=/path to the URI")
}

// A refusal is a PIN that a token refused; only its image under a key of this
// process is kept.
type refusal struct {
	token string
	image [sha256.Size]byte
}

var imageKey = sync.OnceValue(func() []byte { return []byte(rand.Text()) })

func refusalOf(t Token, pin signer.Secret) refusal {
	h := hmac.New(sha256.New, imageKey())
	h.Write(pin.Reveal())
	return refusal{identity(t), [sha256.Size]byte(h.Sum(nil))}
}

// attach opens the session that keeps the token, and logs in if asked to. One
// goroutine does it; others wait for the outcome and look again.
func (t *token) attach(ctx context.Context, c credentials, login bool) error {
	select {
	case t.attaching <- struct{}{}:
		defer func() { <-t.attaching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	t.mu.Lock()
	attached, loggedIn := t.attached, t.loggedIn
	t.mu.Unlock()
	if !attached {
		if err := t.open(ctx); err != nil {
			return err
		}
	}
	if login && (!attached || !loggedIn) {
		return t.login(ctx, c)
	}
	return nil
}

// open finds the token, in its slot or another, and opens the session that
// keeps it.
func (t *token) open(ctx context.Context) error {
	t.mu.Lock()
	slot := t.slot
	t.mu.Unlock()
	if info, ok, err := t.lately(); err != nil || !ok || identity(info) != identity(t.found) {
		all, _, err := t.lib.enumerate(ctx)
		if err != nil {
			return err
		}
		there := false
		for _, other := range all {
			if identity(other) == identity(t.found) {
				slot, there = uint(other.SlotID), true
				break
			}
		}
		if !there {
			return signer.WithHint(fmt.Errorf("%s: %w", t.found, signer.ErrTokenGone), "put the token back and try again; "+listHint)
		}
	}
	h, err := t.lib.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return fmt.Errorf("%s: %w", t.found, t.lib.note(failed("C_OpenSession", err)))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slot, t.keep, t.attached, t.loggedIn = slot, h, true, false
	return nil
}

// login presents the PIN, at most once, unless the process is logged in.
func (t *token) login(ctx context.Context, c credentials) error {
	t.mu.Lock()
	keep, kept := t.keep, t.pin
	t.mu.Unlock()
	info, _, err := t.lately()
	if err != nil {
		return t.lib.note(err)
	}
	if info.LoginRequired && !t.userState(keep) {
		pin, err := t.present(ctx, info, c, func() (signer.Secret, error) { return c.forUser(ctx, info, kept) }, func(pin []byte) error {
			return t.lib.fn.login(keep, p11.CKU_USER, pin)
		})
		if err != nil {
			return err
		}
		t.keepPIN(c, pin)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.attached && t.keep == keep {
		t.loggedIn = true
	}
	return nil
}

func (t *token) keepPIN(c credentials, pin signer.Secret) {
	if !c.o.ReusePIN || pin.Empty() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pin == nil {
		own := signer.NewSecret(pin.Reveal())
		t.pin = &own
	}
}

// mayTry heeds what the token says of its PIN.
func (c credentials) mayTry(info Token) error {
	switch {
	case info.UserPINLocked:
		return loginError(info, &CallError{"C_GetTokenInfo", p11.CKR_PIN_LOCKED})
	case info.UserPINFinalTry && !c.o.AllowFinalTry:
		return signer.WithHint(fmt.Errorf("%s: %w: a wrong PIN would lock it, so none was tried", info, signer.ErrPINFinalTry),
			"log in once with the right PIN by the token's own tool, which resets the counter")
	}
	return nil
}

// dropPIN forgets a PIN that is right no more. It does not wipe it: others may
// be about to present it, and zeros would be one more wrong PIN.
func (t *token) dropPIN() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pin = nil
}

// userState reports whether the session is a logged-in user's: the login is
// the process's, so another part of it may have made it.
func (t *token) userState(s p11.SessionHandle) bool {
	info, err := t.lib.ctx.GetSessionInfo(s)
	return err == nil && (info.State == p11.CKS_RO_USER_FUNCTIONS || info.State == p11.CKS_RW_USER_FUNCTIONS)
}

// present gives try a PIN, or nil for one that is typed at the token, if the
// token's counters and what it refused before allow. info is fresh. PINs are
// presented one after the other, so that a wrong one is known to be when the
// next is at hand.
func (t *token) present(ctx context.Context, info Token, c credentials, ask func() (signer.Secret, error), try func(pin []byte) error) (signer.Secret, error) {
	if err := c.mayTry(info); err != nil {
		return signer.Secret{}, err
	}
	var pin signer.Secret
	if !info.ProtectedAuthenticationPath || c.uri.HasPIN() {
		var err error
		if pin, err = ask(); err != nil {
			return pin, fmt.Errorf("%s: %w", info.Label, err)
		}
	}
	t.presenting.Lock()
	defer t.presenting.Unlock()
	if now, _, err := t.lib.describe(uint(info.SlotID)); err == nil { // someone may have been wrong meanwhile
		if err := c.mayTry(now); err != nil {
			return pin, err
		}
	}
	if !pin.Empty() && t.lib.wasRefused(refusalOf(info, pin), false) {
		return pin, signer.WithHint(fmt.Errorf("%s: %w: the token refused it before, so it was not tried again", info, signer.ErrPINIncorrect),
			"give the right PIN")
	}
	t.mu.Lock()
	t.seenAt = time.Time{} // a PIN that is presented is counted
	t.mu.Unlock()
	err := t.lib.note(try(pin.Reveal()))
	already := codeOf(err) == p11.CKR_USER_ALREADY_LOGGED_IN // which says nothing of the PIN
	switch codeOf(err) {
	case p11.CKR_USER_ALREADY_LOGGED_IN:
		err = nil
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE:
		if !pin.Empty() {
			t.lib.wasRefused(refusalOf(info, pin), true)
			t.dropPIN()
		}
	}
	if err == nil {
		if c.o.Accepted != nil && !already && !pin.Empty() {
			c.o.Accepted(ctx, info)
		}
		return pin, nil
	}
	reached := &CallError{}
	if errors.As(err, &reached) && reached.Call == "C_Login" && classify(err) != failSession && classify(err) != failModule {
		return pin, final{loginError(info, err)}
	}
	return pin, loginError(info, err)
}

// wasRefused reports whether the PIN was refused, and notes that it is.
func (l *library) wasRefused(r refusal, now bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.refused[r]
	if now {
		l.refused[r] = true
	}
	return before
}

func loginError(t Token, err error) error {
	wrap := func(sentinel error, hint string) error {
		return signer.WithHint(fmt.Errorf("%s: %w: %w", t, sentinel, err), hint)
	}
	switch codeOf(err) {
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE:
		return wrap(signer.ErrPINIncorrect, "give the right PIN: the token counts wrong ones and locks itself; this one is not tried again")
	case p11.CKR_PIN_LOCKED:
		return wrap(signer.ErrPINLocked, "unlock the token with its security officer's PIN or its PUK, by the token's own tool")
	case p11.CKR_PIN_EXPIRED:
		return wrap(signer.ErrPINExpired, "change the PIN by the token's own tool: pkcs11-tool --change-pin")
	case p11.CKR_USER_PIN_NOT_INITIALIZED:
		return wrap(signer.ErrPINExpired, "set a user PIN by the token's own tool: pkcs11-tool --init-pin")
	case p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_USER_TOO_MANY_TYPES:
		return signer.WithHint(fmt.Errorf("%s: %w", t, err), "another part of this program is logged in as the security officer: log it out")
	}
	if classify(err) == failDevice {
		return wrap(pkcs11.ErrModuleFailed, "check the device and its connection; the PIN was presented and is not tried again by itself")
	}
	return fmt.Errorf("%s: %w", t, err)
}
