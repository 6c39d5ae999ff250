//go:build cgo

package cryptoki

import (
	"context"

	p11 "github.com/miekg/pkcs11"
)

// A session carries one operation at a time: two on one session end some
// processes.
type session struct {
	handle p11.SessionHandle
	gen    uint64 // the token's when it was taken
	out    [maxSignature]byte
}

// pool is a token's sessions for work. It is guarded by the token's mu.
type pool struct {
	limit   int // on inUse
	inUse   int
	idle    []*session
	waiters []chan struct{} // first come first served
}

// raise lifts the bound on sessions to what o asks for, within the token's own.
func (t *token) raise(o Options) {
	n := o.MaxSessions
	if n <= 0 {
		n = defaultMaxSessions
	}
	if most := t.found.MaxSessions; most > 1 {
		n = min(n, int(most)-1) // one keeps the login
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.single {
		n = 1
	}
	for t.limit < n {
		t.limit++
		t.grant()
	}
}

// grant gives a turn to the first who waits, if there is one. It wants t.mu.
func (t *token) grant() {
	if len(t.waiters) > 0 && t.inUse < t.limit {
		t.inUse++
		t.waiters[0] <- struct{}{}
		t.waiters = t.waiters[1:]
	}
}

// turn waits until one more session may be used.
func (t *token) turn(ctx context.Context) error {
	t.mu.Lock()
	if t.inUse < t.limit {
		t.inUse++
		t.mu.Unlock()
		return nil
	}
	ready := make(chan struct{}, 1)
	t.waiters = append(t.waiters, ready)
	t.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range t.waiters {
		if w == ready {
			t.waiters = append(t.waiters[:i:i], t.waiters[i+1:]...)
			return ctx.Err()
		}
	}
	t.inUse-- // the turn came as well
	t.grant()
	return ctx.Err()
}

// endTurn wants t.mu.
func (t *token) endTurn() {
	t.inUse--
	t.grant()
}

// acquire returns a session, logged in if asked to. It is given back with
// release or, after any error, with discard.
func (t *token) acquire(ctx context.Context, c credentials, login bool) (*session, error) {
	if err := t.lib.check(ctx); err != nil {
		return nil, err
	}
	if s := t.takeIdle(login); s != nil {
		return s, nil
	}
	for {
		if err := t.turn(ctx); err != nil {
			return nil, err
		}
		s, err := t.take(ctx, c, login)
		if err == nil {
			return s, nil
		}
		t.mu.Lock()
		full := codeOf(err) == p11.CKR_SESSION_COUNT && t.inUse > 1
		if full { // the others in use are all that the token has
			t.limit = t.inUse - 1
		}
		t.endTurn()
		t.mu.Unlock()
		if !full {
			return nil, err
		}
	}
}

// takeIdle does turn's and take's work at once where there is none to do, or
// returns nil.
func (t *token) takeIdle(login bool) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.idle)
	if n == 0 || t.inUse >= t.limit || !t.attached || login && !t.loggedIn {
		return nil
	}
	s := t.idle[n-1]
	t.idle = t.idle[:n-1]
	t.inUse++
	s.gen = t.gen
	return s
}

// take wants a turn.
func (t *token) take(ctx context.Context, c credentials, login bool) (*session, error) {
	for {
		t.mu.Lock()
		if !t.attached || login && !t.loggedIn {
			t.mu.Unlock()
			if err := t.attach(ctx, c, login); err != nil {
				return nil, err
			}
			continue
		}
		gen, slot, inUse := t.gen, t.slot, t.inUse
		if n := len(t.idle); n > 0 {
			s := t.idle[n-1]
			t.idle = t.idle[:n-1]
			t.mu.Unlock()
			s.gen = gen
			return s, nil
		}
		if t.single {
			s := &session{handle: t.keep, gen: gen}
			t.mu.Unlock()
			return s, nil
		}
		t.mu.Unlock()
		h, err := t.lib.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION)
		if err == nil {
			return &session{handle: h, gen: gen}, nil
		}
		err = t.lib.note(failed("C_OpenSession", err))
		if codeOf(err) == p11.CKR_SESSION_COUNT && inUse == 1 {
			t.mu.Lock()
			t.single, t.limit = true, 1
			t.mu.Unlock()
			continue
		}
		if classify(err) == failSession {
			t.reset(gen)
		}
		return nil, err
	}
}

// release gives back a session whose operation went well.
func (t *token) release(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.single && t.attached && s.handle == t.keep:
	case s.gen == t.gen:
		t.idle = append(t.idle, s)
	default:
		_ = t.lib.ctx.CloseSession(s.handle)
	}
	t.endTurn()
}

// discard closes a session after err: an operation may be left in it. A handle
// the module no longer knows is not closed, for it may have come to stand for
// another session.
func (t *token) discard(s *session, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	code := codeOf(err)
	gone := code == p11.CKR_SESSION_HANDLE_INVALID || code == p11.CKR_SESSION_CLOSED
	switch {
	case t.single && t.attached && s.handle == t.keep:
		t.closeSessions()
	case !gone:
		_ = t.lib.ctx.CloseSession(s.handle)
	}
	t.endTurn()
}

// with runs f on a session.
func (t *token) with(ctx context.Context, c credentials, login bool, f func(s *session) error) error {
	s, err := t.acquire(ctx, c, login)
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		t.discard(s, err)
		return t.lib.note(err)
	}
	t.release(s)
	return nil
}

// retry runs f on a session and, if what went wrong may be mended by another
// session, login or a second look for the object, mends that and runs it once
// more.
func (t *token) retry(ctx context.Context, c credentials, login bool, f func(s *session) error) error {
	var gen uint64 // none, if there was no session: then nothing is reset
	err := t.with(ctx, c, login, func(s *session) error {
		gen = s.gen
		return f(s)
	})
	switch classify(err) {
	case failPlain, failModule:
		return lasting(err)
	case failHandle, failDevice:
		if login && t.loggedOut() {
			t.reset(gen)
		} else {
			t.forget(gen)
		}
	case failLogin, failSession:
		t.reset(gen)
	}
	return lasting(t.with(ctx, c, login, f))
}
