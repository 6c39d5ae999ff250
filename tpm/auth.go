package tpm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// AuthFunc returns the authorization value (password, PIN) of object, which is
// described for people. The Secret stays the caller's, who may wipe it when the
// Key is closed. An empty Secret stands for an empty value. Errors are passed on
// as they are, and should name the object.
type AuthFunc func(ctx context.Context, object string) (signer.Secret, error)

// A credential is what authorizes the use of one entity of the TPM.
type credential struct {
	what   string // for people
	name   []byte
	da     bool // protected against dictionary attacks
	vouch  bool // the key file says that the value is empty
	ask    AuthFunc
	mend   string // the hint if the value is not empty and there is no ask
	secret []byte // trimmed; valid once asked
	asked  bool
}

func ofHierarchy(h tpm2.TPMHandle, ask AuthFunc, mend string) *credential {
	return &credential{what: hierarchyName(h), name: tpm2.HandleName(h).Buffer, ask: ask, mend: mend}
}

// value asks for the authorization value, once.
func (c *credential) value(ctx context.Context) ([]byte, error) {
	if c.asked || c.ask == nil {
		return c.secret, nil
	}
	s, err := c.ask(ctx, c.what)
	if err != nil {
		return nil, err
	}
	c.secret, c.asked = append([]byte(nil), trimAuth(s.Reveal())...), true
	return c.secret, nil
}

func (c *credential) wipe() {
	clear(c.secret)
	c.secret, c.asked = nil, false
}

func emptyAuth() tpm2.Session { return tpm2.PasswordAuth(nil) }

// authorize returns a session that proves the credential for one command, whose
// first parameters are encrypted where in and out say so. An empty value needs
// none. The command's error is to be passed through judge.
func (o *op) authorize(c *credential, near *object, in, out bool) (tpm2.Session, error) {
	secret, err := c.value(o.ctx)
	if err != nil {
		return nil, err
	}
	if err := o.guard(c); err != nil {
		return nil, err
	}
	if len(secret) == 0 {
		return emptyAuth(), nil
	}
	s, err := o.hmacSession(near)
	if err != nil {
		return nil, err
	}
	return s.with(secret, in, out), nil
}

// A latch stands for one value of one entity.
type latch [sha256.Size]byte

func (c *credential) latch() (l latch) {
	h := sha256.New()
	h.Write(c.name)
	h.Write([]byte{0})
	h.Write(c.secret)
	h.Sum(l[:0])
	return l
}

// guard keeps a wrong value from being presented twice, and any value from
// being presented when a wrong one would lock the TPM.
func (o *op) guard(c *credential) error {
	d, l := o.d, c.latch()
	if d.latched[l] && len(c.secret) == 0 {
		return c.required()
	}
	if d.latched[l] {
		return c.incorrect("it was refused before, and is not tried again")
	}
	if !c.da || d.proven[l] {
		return nil
	}
	if err := d.wasRefused(c); err != nil || c.vouch {
		return err
	}
	state, err := o.lockout()
	if err != nil {
		return err
	}
	return state.permit(c.what)
}

// judge tells what the TPM thinks of the credential from a command's error.
func (o *op) judge(c *credential, err error) error {
	switch rc := codeOf(err); {
	case err == nil:
		if l := c.latch(); !o.d.proven[l] {
			o.d.proven[l] = true
			if c.da {
				o.d.forgive(c)
			}
		}
		return nil
	case authRefused(err) && o.d.proven[c.latch()] && len(c.secret) > 0:
		// It was right before. Either it was changed, or the session is not
		// the one it was: something else has its handle after a reset.
		delete(o.d.proven, c.latch())
		if o.d.session != nil {
			o.d.session.bad = true
		}
		return fmt.Errorf("%w: %s: %w", errStale, c.what, err)
	case authRefused(err):
		o.d.latched[c.latch()] = true
		if c.da {
			o.d.remember(c)
		}
		if len(c.secret) == 0 {
			return c.required()
		}
		return c.incorrect("the TPM refused it")
	case rc == tpm2.TPMRCLockout:
		state, serr := o.lockout()
		if serr != nil {
			return errors.Join(fmt.Errorf("%s: %w", c.what, signer.ErrPINLocked), serr)
		}
		return state.locked(c.what)
	}
	return err
}

// errStale: a password that was right before was refused.
var errStale = errors.New("the TPM has changed since the password was last used")

func (c *credential) incorrect(why string) error {
	hint := "check the password; each wrong one counts against the TPM's lock-out"
	if !c.da {
		hint = "check the password"
	}
	return signer.WithHint(fmt.Errorf("%s: %w: %s", c.what, signer.ErrPINIncorrect, why), hint)
}

func (c *credential) required() error {
	if c.vouch {
		return signer.WithHint(fmt.Errorf("%s: %w: its password is not empty, though the key file says so", c.what, signer.ErrPINRequired),
			"the file is wrong about its key (emptyAuth): get it anew from where the key was made")
	}
	return signer.WithHint(fmt.Errorf("%s: %w: its password is not empty", c.what, signer.ErrPINRequired), cmp.Or(c.mend, "say where its password comes from"))
}

func authRefused(err error) bool {
	rc := codeOf(err)
	return rc == tpm2.TPMRCAuthFail || rc == tpm2.TPMRCBadAuth
}

// Lockout is the state of a TPM's protection against dictionary attacks.
type Lockout struct {
	Failed   int           // wrong values counted
	Max      int           // wrong values after which the TPM locks
	Interval time.Duration // after which one of them is forgotten
	Recovery time.Duration // after which the lock-out hierarchy may be used again
	Locked   bool
}

// Lockout reads the state of the protection against dictionary attacks.
func (d *Device) Lockout(ctx context.Context) (state Lockout, err error) {
	err = d.do(ctx, func(o *op) error {
		state, err = o.lockout()
		return err
	})
	return state, err
}

func (o *op) lockout() (s Lockout, err error) {
	values, err := o.properties(tpm2.TPMPTLockoutCounter, 4)
	if err != nil {
		return s, err
	}
	second := func(p tpm2.TPMPT) time.Duration { return time.Duration(values[p]) * time.Second }
	s = Lockout{
		Failed: int(values[tpm2.TPMPTLockoutCounter]), Max: int(values[tpm2.TPMPTMaxAuthFail]),
		Interval: second(tpm2.TPMPTLockoutInterval), Recovery: second(tpm2.TPMPTLockoutRecovery),
	}
	s.Locked = s.Failed >= s.Max
	return s, nil
}

// permit returns an error unless a wrong value would leave the TPM open.
func (s Lockout) permit(what string) error {
	if s.Locked {
		return s.locked(what)
	}
	if s.Failed+1 >= s.Max {
		return signer.WithHint(fmt.Errorf("%s: %w: %d of %d wrong passwords were counted", what, signer.ErrPINFinalTry, s.Failed, s.Max),
			s.relief("one is forgotten"))
	}
	return nil
}

func (s Lockout) locked(what string) error {
	wait := "until someone resets it"
	if s.Interval > 0 {
		wait = "for up to " + s.Interval.String()
	}
	return signer.WithHint(fmt.Errorf("%s: %w: the TPM takes no password %s, after %d wrong ones", what, signer.ErrPINLocked, wait, s.Failed),
		s.relief("it takes one again"))
}

func (s Lockout) relief(what string) string {
	reset := "reset the counter: tpm2_dictionarylockout --clear-lockout (with the lock-out password, if there is one)"
	if s.Interval == 0 {
		return reset
	}
	return fmt.Sprintf("wait: %s every %v the TPM is on; or %s", what, s.Interval, reset)
}

// properties reads TPM_PT values.
func (o *op) properties(first tpm2.TPMPT, count uint32) (map[tpm2.TPMPT]uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(first), PropertyCount: count}.Execute(o)
	if err != nil {
		return nil, o.d.wrapf(err, "reading the TPM's properties")
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, o.d.wrapf(err, "reading the TPM's properties")
	}
	values := map[tpm2.TPMPT]uint32{}
	for _, p := range list.TPMProperty {
		values[p.Property] = p.Value
	}
	return values, nil
}
