package hosted

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// Defaults of Config.
const (
	DefaultCallTimeout  = 10 * time.Second
	DefaultCloseTimeout = time.Second
)

// generateFactor is how much longer than other calls making a key may take.
const generateFactor = 12

// A Config says which module to host, and how. Only Module has to be set.
type Config struct {
	// Module is the path of the module, as pkcs11.FindModule returns it.
	Module string

	// Program is the path of holdfast-pkcs11. Empty means the first of: beside
	// this executable, in ../libexec/holdfast from there, in PATH.
	Program string

	// CallTimeout bounds each of the two attempts of a call. Where the
	// caller's context ends earlier, the attempts share its time.
	CallTimeout time.Duration

	// CloseTimeout is how long the module gets for C_Finalize.
	CloseTimeout time.Duration

	// Brief ends the host's process after each signature, beside whatever the
	// caller does next; a further call starts another. It is for programs that
	// make one signature, one call at a time: Close then has little to wait for.
	Brief bool

	// Environment is what the module's variables are taken from, in the form
	// of os.Environ. Nil means os.Environ(). See [Environment].
	Environment []string

	// StateDir holds the notes on refused PINs. It is made with mode 0700.
	// Empty means "holdfast" in the user's runtime directory, else one in the
	// temporary directory.
	StateDir string

	// Logger gets restarts and, at debug level, what the module prints, with
	// known PINs redacted. Nil means none.
	Logger *slog.Logger
}

// Options says how to log in and how much of a token to use; its fields are
// those of cryptoki.Options.
type Options struct {
	// PIN is asked for the user PIN of a token at the first login. A PIN that
	// the URI brings goes before.
	PIN func(ctx context.Context, t pkcs11.Token) (signer.Secret, error)
	// KeyPIN is asked at each signature of a key that always authenticates,
	// unless ReusePIN is set or the URI brings the PIN. Nil means PIN.
	KeyPIN func(ctx context.Context, t pkcs11.Token, key *pkcs11.URI) (signer.Secret, error)
	// ReusePIN uses the login's PIN for keys that always authenticate.
	ReusePIN bool
	// AllowFinalTry presents a PIN even if a wrong one would lock the token.
	AllowFinalTry bool
	// MaxSessions bounds the sessions the open keys of a token share. Zero
	// means the backend's default.
	MaxSessions int
	// AlwaysAuthenticate makes GenerateKey make a key that wants the PIN at
	// each signature.
	AlwaysAuthenticate bool
	// Replace lets ImportCertificate replace the certificates a key has.
	Replace bool
}

func (o Options) wire(uri *pkcs11.URI) wire.Options {
	return wire.Options{
		PIN:           o.PIN != nil || uri.HasPIN(),
		AllowFinalTry: o.AllowFinalTry, MaxSessions: o.MaxSessions,
		AlwaysAuthenticate: o.AlwaysAuthenticate, Replace: o.Replace,
	}
}

// A Host is a module in a process of its own. It is safe for concurrent use.
type Host struct {
	cfg     Config
	program string
	pins    *vault

	mu     sync.Mutex
	child  *child   // nil before the first and after a failed one
	ending []*child // that were sent away and may not be gone yet
	closed bool
}

// ErrClosed is returned by calls after Close.
var ErrClosed = errors.New("the PKCS#11 host is closed")

// Start starts the host and does not wait for it to load the module: that
// the module cannot be loaded, the first call says. It returns an error that
// wraps [ErrNoHost] if there is no holdfast-pkcs11.
func Start(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = DefaultCallTimeout
	}
	if cfg.CloseTimeout <= 0 {
		cfg.CloseTimeout = DefaultCloseTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	program, err := findProgram(cfg.Program)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, program: program, pins: newVault(cfg.StateDir, cfg.Logger)}
	_, err = h.current()
	return h, err
}

// current returns the child, started if need be.
func (h *Host) current() (*child, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if h.child != nil && !h.child.isLost() {
		return h.child, nil
	}
	if h.child != nil {
		h.cfg.Logger.Warn("starting the PKCS#11 host again", "module", h.cfg.Module, "after", h.child.why)
		h.child.awaitEnd(killTime)
	}
	c, err := startChild(h.program, h.cfg, h.pins.redact)
	if err != nil {
		h.child = nil
		return nil, err
	}
	h.child = c
	return c, nil
}

// Close asks the host to finalise the module, waits for it to end, and kills
// it if it does not in Config.CloseTimeout. PINs are wiped, and calls still
// under way fail.
func (h *Host) Close() error {
	h.mu.Lock()
	c, ending := h.child, h.ending
	h.child, h.ending, h.closed = nil, nil, true
	h.mu.Unlock()
	h.pins.wipe()
	if c != nil {
		c.sendAway()
		ending = append(ending, c)
	}
	for _, c := range ending {
		c.close(h.cfg.CloseTimeout)
	}
	return nil
}

// sendAway has the child end if it is still in use and has nothing to do.
func (h *Host) sendAway(c *child) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.child == c && c.isIdle() {
		h.child = nil
		h.ending = append(slices.DeleteFunc(h.ending, (*child).isGone), c)
		c.sendAway()
	}
}

// An attempt is one of the two that a call has.
type attempt struct {
	child    *child
	pins     *asker
	deadline time.Time
	once     bool // what it does must not be done twice
}

// attempts runs f, and runs it a second time, on a new child, if the first
// lost its child or the module or token was beyond mending there.
func (h *Host) attempts(ctx context.Context, timeout time.Duration, uri *pkcs11.URI, o Options, f func(*attempt) error) error {
	for second := false; ; second = true {
		c, err := h.current()
		if err != nil {
			return err
		}
		a := &attempt{child: c, pins: &asker{vault: h.pins, uri: uri, o: o}, deadline: time.Now().Add(share(ctx, timeout, second))}
		err = f(a)
		mayRetry := a.pins.settle(err)
		switch {
		case err == nil, !isBeyondMending(err):
			return a.pins.explain(err)
		case ctx.Err() != nil || second || a.once || !mayRetry:
			c.kill(nil)
			return a.pins.explain(err)
		}
		c.kill(nil)
	}
}

// share is how long an attempt may take: the first leaves the second as much.
func share(ctx context.Context, timeout time.Duration, second bool) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return timeout
	}
	left := time.Until(end)
	if second {
		return min(timeout, left*8/10)
	}
	return min(timeout, left*45/100)
}

// isBeyondMending reports whether another process may succeed.
func isBeyondMending(err error) bool {
	if isLoadError(err) || errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed) {
		return false
	}
	return isLost(err) || errors.Is(err, pkcs11.ErrModuleFailed) || errors.Is(err, signer.ErrTokenGone)
}

// Library describes the module.
func (h *Host) Library(ctx context.Context) (pkcs11.Library, error) {
	var l pkcs11.Library
	err := h.attempts(ctx, h.cfg.CallTimeout, nil, Options{}, func(a *attempt) error {
		err := a.call(ctx, wire.OpTokens, nil, &wire.Tokens{})
		l = a.child.library()
		return err
	})
	return l, err
}

// Tokens returns the tokens that are present and initialised.
func (h *Host) Tokens(ctx context.Context) ([]pkcs11.Token, error) {
	var out wire.Tokens
	err := h.attempts(ctx, h.cfg.CallTimeout, nil, Options{}, func(a *attempt) error {
		return a.call(ctx, wire.OpTokens, nil, &out)
	})
	return out.Tokens, err
}

// Certificates returns the certificates that the URI matches and, marked
// Issuer, those above them.
func (h *Host) Certificates(ctx context.Context, uri *pkcs11.URI, o Options) ([]pkcs11.Certificate, error) {
	var out wire.Certificates
	err := h.attempts(ctx, h.cfg.CallTimeout, uri, o, func(a *attempt) error {
		return a.call(ctx, wire.OpCertificates, &wire.Query{URI: uri, Options: o.wire(uri)}, &out)
	})
	return out.Certificates, err
}

// List returns what is on the tokens that the URI matches.
func (h *Host) List(ctx context.Context, uri *pkcs11.URI, o Options) ([]pkcs11.Contents, error) {
	var out wire.Contents
	err := h.attempts(ctx, h.cfg.CallTimeout, uri, o, func(a *attempt) error {
		return a.call(ctx, wire.OpList, &wire.Query{URI: uri, Options: o.wire(uri)}, &out)
	})
	return out.Contents, err
}

// ImportCertificate stores cert beside its key on the token that the URI
// names.
func (h *Host) ImportCertificate(ctx context.Context, uri *pkcs11.URI, cert *x509.Certificate, o Options) (pkcs11.Certificate, error) {
	var out wire.Certificates
	err := h.attempts(ctx, h.cfg.CallTimeout, uri, o, func(a *attempt) error {
		return a.call(ctx, wire.OpImport, &wire.Import{URI: uri, DER: cert.Raw, Options: o.wire(uri)}, &out)
	})
	if err == nil && len(out.Certificates) != 1 {
		err = wire.ErrFrame
	}
	if err != nil {
		return pkcs11.Certificate{}, err
	}
	return out.Certificates[0], nil
}
