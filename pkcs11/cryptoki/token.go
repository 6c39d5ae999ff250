//go:build cgo

package cryptoki

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// A token is one in use: its login, which all keys of the process share, and
// its sessions. A session of its own keeps the login alive while those that
// sign come and go.
type token struct {
	lib *library
	// found describes the token when it was met first. Serial, label,
	// manufacturer and model find it again; the slot may change.
	found Token
	refs  int // guarded by lib.mu

	// attaching admits one goroutine to attach: enumerate, open, log in.
	attaching chan struct{}
	// presenting admits one PIN at a time.
	presenting sync.Mutex

	mu sync.Mutex
	// gen counts what ends sessions, logins and object handles.
	gen      uint64
	slot     uint
	attached bool
	keep     p11.SessionHandle
	single   bool // the token has but one session, so keep is the one to use
	loggedIn bool
	seen     Token          // what the token said of itself last
	seenAt   time.Time      // when; zero: it is to be asked
	pin      *signer.Secret // kept for ReusePIN
	pool

	mechs atomic.Pointer[mechanisms] // nil: not known
}

// identity is what of a token lasts.
func identity(t Token) string {
	return strings.Join([]string{t.Serial, t.Label, t.Manufacturer, t.Model}, "\x00")
}

// place tells apart tokens that are copies of one another.
func place(t Token) string { return fmt.Sprint(t.SlotID, "\x00", identity(t)) }

func trim(s string) string { return strings.TrimRight(s, " \x00") }

// enumerate returns the initialised tokens, and why slots were left out.
func (l *library) enumerate(ctx context.Context) (tokens []Token, skipped []error, err error) {
	if err := l.check(ctx); err != nil {
		return nil, nil, err
	}
	slots, err := l.ctx.GetSlotList(true)
	for try := 0; try < 3 && err == p11.Error(p11.CKR_BUFFER_TOO_SMALL); try++ {
		slots, err = l.ctx.GetSlotList(true) // a token came in between
	}
	if err != nil {
		return nil, nil, lasting(l.note(failed("C_GetSlotList", err)))
	}
	for _, slot := range slots {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		t, ok, err := l.describe(slot)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("slot %d: %w", slot, l.note(err)))
		} else if ok {
			tokens = append(tokens, t)
		}
	}
	return tokens, skipped, nil
}

// describe returns ok false for a token that is not initialised.
func (l *library) describe(slot uint) (t Token, ok bool, err error) {
	info, err := l.ctx.GetTokenInfo(slot)
	if err != nil {
		return Token{}, false, failed("C_GetTokenInfo", err)
	}
	has := func(flag uint) bool { return info.Flags&flag != 0 }
	t = Token{
		Label: trim(info.Label), Manufacturer: trim(info.ManufacturerID), Model: trim(info.Model), Serial: trim(info.SerialNumber),
		SlotID:                      uint64(slot),
		LoginRequired:               has(p11.CKF_LOGIN_REQUIRED),
		ProtectedAuthenticationPath: has(p11.CKF_PROTECTED_AUTHENTICATION_PATH),
		UserPINInitialized:          has(p11.CKF_USER_PIN_INITIALIZED),
		UserPINCountLow:             has(p11.CKF_USER_PIN_COUNT_LOW),
		UserPINFinalTry:             has(p11.CKF_USER_PIN_FINAL_TRY),
		UserPINLocked:               has(p11.CKF_USER_PIN_LOCKED),
		UserPINToBeChanged:          has(p11.CKF_USER_PIN_TO_BE_CHANGED),
		WriteProtected:              has(p11.CKF_WRITE_PROTECTED),
	}
	t.Sessions, t.MaxSessions = told(info.SessionCount), told(info.MaxSessionCount)
	if s, err := l.ctx.GetSlotInfo(slot); err == nil {
		t.SlotDescription, t.SlotManufacturer = trim(s.SlotDescription), trim(s.ManufacturerID)
	}
	return t, has(p11.CKF_TOKEN_INITIALIZED), nil
}

// told returns 0 for CK_UNAVAILABLE_INFORMATION, a CK_ULONG of ones, which is 32
// bits long on Windows.
func told(n uint) uint64 {
	if n == ^uint(0) || n == 1<<32-1 {
		return 0
	}
	return uint64(n)
}

// Tokens returns the tokens that are present and initialised. Slots that fail
// are left out; [Module.List] reports them.
func (m *Module) Tokens(ctx context.Context) ([]Token, error) {
	tokens, _, err := m.lib.enumerate(ctx)
	return tokens, err
}

// matching returns the tokens that the URI fits, of which there is at least
// one.
func (m *Module) matching(ctx context.Context, uri *pkcs11.URI) ([]Token, error) {
	all, skipped, err := m.lib.enumerate(ctx)
	if err != nil {
		return nil, err
	}
	var fit []Token
	var there []string
	for _, t := range all {
		there = append(there, t.URI().String())
		if uri.MatchesToken(m.lib.info, t) {
			fit = append(fit, t)
		}
	}
	if len(fit) > 0 {
		return fit, nil
	}
	err = fmt.Errorf("%s: %w in %s; there is: %s", uri, signer.ErrTokenNotFound, m.lib.path, list(there))
	if unknown := uri.Unknown(); len(unknown) > 0 {
		err = fmt.Errorf("%s: %w: the URI's attribute %q is not known, so it matches nothing", uri, signer.ErrTokenNotFound, unknown[0])
	}
	for _, s := range skipped {
		err = fmt.Errorf("%w; skipped %w", err, s)
	}
	return nil, signer.WithHint(err, listHint)
}

// use returns the token of a description, to be given back with drop.
func (l *library) use(info Token) *token {
	l.retain()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tokens[place(info)]
	if t == nil {
		t = &token{lib: l, found: info, slot: uint(info.SlotID), attaching: make(chan struct{}, 1), gen: 1, single: info.MaxSessions == 1}
		t.pool.limit = 1
		l.tokens[place(info)] = t
	}
	t.refs++
	t.mu.Lock()
	t.seen, t.seenAt = info, time.Now() // callers have just enumerated
	t.mu.Unlock()
	return t
}

// fresh is for how long what a token said of itself is believed: as long as one
// request takes that no person has a part in.
const fresh = 50 * time.Millisecond

// lately is describe for the token's slot, unless that was just done.
func (t *token) lately() (info Token, ok bool, err error) {
	t.mu.Lock()
	slot, seen, at := t.slot, t.seen, t.seenAt
	t.mu.Unlock()
	if uint(seen.SlotID) == slot && time.Since(at) < fresh {
		return seen, true, nil
	}
	return t.lib.describe(slot)
}

// drop ends a use. The last one closes the token's sessions, which ends its
// login.
func (t *token) drop() error {
	t.lib.mu.Lock()
	if t.refs--; t.refs == 0 {
		delete(t.lib.tokens, place(t.found))
		t.mu.Lock()
		t.closeSessions()
		if t.pin != nil {
			t.pin.Wipe()
			t.pin = nil
		}
		t.mu.Unlock()
	}
	t.lib.mu.Unlock()
	return t.lib.release()
}

func (t *token) generation() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gen
}

// reset closes the token's idle sessions and forgets its login and handles,
// unless that has happened since gen.
func (t *token) reset(gen uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen == gen {
		t.closeSessions()
	}
}

// forget has object handles found again, but keeps the login.
func (t *token) forget(gen uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen == gen {
		t.gen++
	}
}

// loggedOut reports whether a login that this package counts on is no more.
func (t *token) loggedOut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.attached && t.loggedIn && t.found.LoginRequired && !t.userState(t.keep)
}

// closeSessions wants t.mu.
func (t *token) closeSessions() {
	t.gen++
	for _, s := range t.idle {
		_ = t.lib.ctx.CloseSession(s.handle)
	}
	t.idle = nil
	if t.attached {
		_ = t.lib.ctx.CloseSession(t.keep)
	}
	t.attached, t.keep, t.loggedIn, t.seenAt = false, 0, false, time.Time{}
}
