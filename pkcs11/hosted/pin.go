package hosted

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// A vault remembers, for the life of the Host, which PIN each token took and
// which it refused.
type vault struct {
	notes *notes
	key   []byte // for images of refused PINs

	mu      sync.Mutex
	taken   map[string]signer.Secret
	refused map[string]time.Time // image → until when; zero: for ever
	seen    []signer.Secret      // all that left for the host, to redact
}

func newVault(dir string, log *slog.Logger) *vault {
	return &vault{
		notes: &notes{dir: dir, log: log}, key: []byte(rand.Text()),
		taken: map[string]signer.Secret{}, refused: map[string]time.Time{},
	}
}

// identity is what of a token lasts.
func identity(t pkcs11.Token) string {
	return strings.Join([]string{t.Serial, t.Label, t.Manufacturer, t.Model}, "\x00")
}

func (v *vault) image(token string, pin signer.Secret) string {
	h := hmac.New(sha256.New, v.key)
	h.Write([]byte(token))
	h.Write([]byte{0})
	h.Write(pin.Reveal())
	return string(h.Sum(nil))
}

// login returns the PIN that the token took before.
func (v *vault) login(token string) (signer.Secret, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	pin, ok := v.taken[token]
	return pin, ok
}

// check returns an error if the PIN must not be presented, now or ever.
func (v *vault) check(t pkcs11.Token, pin signer.Secret) error {
	token := identity(t)
	v.mu.Lock()
	until, refused := v.refused[v.image(token, pin)]
	v.mu.Unlock()
	switch {
	case refused && until.IsZero():
		return signer.WithHint(fmt.Errorf("%w: the token refused it before, so it was not tried again", signer.ErrPINIncorrect), "give the right PIN")
	case refused && time.Now().Before(until):
		return signer.WithHint(fmt.Errorf("%w: when it was given last, the module failed, and it may have been refused: it is tried again at %s",
			signer.ErrPINIncorrect, until.Format(time.TimeOnly)), "check the PIN and the module")
	}
	return v.notes.check(token, pin)
}

// take notes that the token took the PIN.
func (v *vault) take(token string, pin signer.Secret) {
	v.mu.Lock()
	if _, ok := v.taken[token]; !ok {
		v.taken[token] = signer.NewSecret(pin.Reveal())
	}
	delete(v.refused, v.image(token, pin))
	v.mu.Unlock()
	v.notes.clear(token)
}

// refuse notes that the token refused the PIN or, unless certain, may have.
func (v *vault) refuse(token string, pin signer.Secret, certain bool) {
	var until time.Time
	if !certain {
		until = time.Now().Add(restUncertain)
	}
	v.mu.Lock()
	v.refused[v.image(token, pin)] = until
	if old, ok := v.taken[token]; ok && certain && hmac.Equal(old.Reveal(), pin.Reveal()) {
		old.Wipe()
		delete(v.taken, token)
	}
	v.mu.Unlock()
	v.notes.write(token, pin, certain)
}

func (v *vault) redact(b []byte) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	var secrets [][]byte
	for _, s := range v.seen {
		secrets = append(secrets, s.Reveal())
	}
	return redactAll(b, secrets)
}

// present keeps a copy of what leaves for the host.
func (v *vault) present(pin signer.Secret) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.seen {
		if hmac.Equal(s.Reveal(), pin.Reveal()) {
			return
		}
	}
	v.seen = append(v.seen, signer.NewSecret(pin.Reveal()))
}

func (v *vault) wipe() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, pin := range v.taken {
		pin.Wipe()
	}
	for _, pin := range v.seen {
		pin.Wipe()
	}
	clear(v.taken)
	v.seen = nil
}

// An asker answers the host's questions during one attempt, and learns from
// how the attempt ends.
type asker struct {
	vault *vault
	uri   *pkcs11.URI
	o     Options

	given   []given
	failure error // the last that ask returned
	resting bool
}

// given is a PIN that went to the host.
type given struct {
	token    string
	pin      signer.Secret
	countLow bool // the token's flag at the time
	accepted bool
}

func (a *asker) ask(ctx context.Context, q wire.Ask) (signer.Secret, error) {
	pin, err := a.find(ctx, q)
	if err == nil && pin.Empty() {
		err = signer.WithHint(fmt.Errorf("%s: %w", q.Token, signer.ErrPINRequired), "name a file that holds the PIN: add ?pin-source=/path to the URI")
	}
	if err == nil {
		err = a.again(q, pin)
	}
	if err == nil {
		err = a.vault.check(q.Token, pin)
	}
	if a.failure = err; err != nil {
		return signer.Secret{}, err
	}
	a.vault.present(pin)
	a.given = append(a.given, given{token: identity(q.Token), pin: signer.NewSecret(pin.Reveal()), countLow: q.Token.UserPINCountLow})
	return pin, nil
}

func (a *asker) find(ctx context.Context, q wire.Ask) (signer.Secret, error) {
	taken, ok := a.vault.login(identity(q.Token))
	if ok && (q.Key == nil || a.o.ReusePIN) {
		return taken, nil
	}
	if pin, ok, err := a.uri.PIN(); ok {
		return pin, err
	}
	if q.Key != nil && !a.o.ReusePIN && a.o.KeyPIN != nil {
		return a.o.KeyPIN(ctx, q.Token, q.Key)
	}
	if a.o.PIN == nil {
		return signer.Secret{}, nil
	}
	return a.o.PIN(ctx, q.Token)
}

// again refuses a PIN that this attempt gave before if the token has counted
// a wrong one since.
func (a *asker) again(q wire.Ask, pin signer.Secret) error {
	for _, g := range a.given {
		if g.token == identity(q.Token) && q.Token.UserPINCountLow && !g.countLow && hmac.Equal(g.pin.Reveal(), pin.Reveal()) {
			a.vault.refuse(g.token, g.pin, true)
			return fmt.Errorf("%s: %w", q.Token, signer.ErrPINIncorrect)
		}
	}
	return nil
}

// accept notes that the token took the first n PINs given.
func (a *asker) accept(n int) {
	for i := range min(n, len(a.given)) {
		a.given[i].accepted = true
	}
}

// settle judges by the attempt's error what became of the PINs given. It
// reports whether a second attempt is without danger for the token.
func (a *asker) settle(err error) (mayRetry bool) {
	mayRetry = a.failure == nil
	for i, g := range a.given {
		last := i == len(a.given)-1
		old, known := a.vault.login(g.token)
		known = known && hmac.Equal(old.Reveal(), g.pin.Reveal())
		switch {
		case provesLogin(err) || g.accepted:
			a.vault.take(g.token, g.pin)
		case a.failure != nil: // a later question ended it
		case last && (errors.Is(err, signer.ErrPINIncorrect) || errors.Is(err, signer.ErrPINLocked)):
			a.vault.refuse(g.token, g.pin, true)
			mayRetry = false
		case known: // it was right before
		case isLost(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
			a.vault.refuse(g.token, g.pin, false)
			a.resting, mayRetry = true, false
		default:
			mayRetry = false
		}
		g.pin.Wipe()
	}
	a.given = nil
	return mayRetry
}

// provesLogin: these come after a login that went well.
func provesLogin(err error) bool {
	return err == nil || errors.Is(err, signer.ErrKeyNotFound) || errors.Is(err, signer.ErrCertificateNotFound) ||
		errors.Is(err, signer.ErrAmbiguous) || errors.Is(err, signer.ErrUnsupportedKey) || errors.Is(err, pkcs11.ErrExists)
}

// explain joins to err what this side knows of it.
func (a *asker) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case a.failure != nil:
		return &answered{err, a.failure}
	case a.resting:
		return fmt.Errorf("%w; the PIN was given and may have been refused: it is not tried again for %v", err, restUncertain)
	}
	return err
}

// answered is an error of the host that comes from an answer of ours, whose
// identity it keeps.
type answered struct{ err, cause error }

func (e *answered) Error() string { return e.err.Error() }

func (e *answered) Unwrap() []error { return []error{e.cause, e.err} }
