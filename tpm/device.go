package tpm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
)

// Config says how to open TPMs. The zero value is ready for use.
type Config struct {
	// LockDir holds the lock files of TPMs that have no resource manager. If
	// empty, it is /run/lock where that exists, else $XDG_RUNTIME_DIR, else
	// the directory for temporary files. All programs that share such a TPM
	// must agree on it.
	LockDir string

	// Hints tell people, in errors, how to give a password that is missing.
	Hints Hints

	// Pins remembers the Name of each TPM's salt key. If nil, it is remembered
	// for as long as the Device is open.
	Pins Pins
}

// Hints are what an error says that mends a missing password, such as "give it
// with --owner-auth": that of a key, of its parent, and of the hierarchy in which
// the parent is made.
type Hints struct{ Key, Parent, Owner string }

// Open opens the TPM that spec names, see [Config.Open], with the zero Config.
func Open(ctx context.Context, spec string) (*Device, error) { return Config{}.Open(ctx, spec) }

// New returns a Device over t, such as a simulator in the same process, which
// must be t's only user. name stands for it in errors. The Device owns t: if t
// is an io.Closer, Close closes it.
func New(t transport.TPM, name string) *Device { return Config{}.New(t, name) }

// New is the function [New] with c's settings.
func (c Config) New(t transport.TPM, name string) *Device {
	w := newGivenWire(t)
	return c.device(place{name: name, id: name, dial: func(context.Context) (wire, error) { return w, nil }, closer: w.shut})
}

func (c Config) device(p place) *Device {
	d := &Device{place: p, pins: c.Pins, hints: c.Hints, lockDir: c.LockDir, turn: make(chan struct{}, 1), proven: map[latch]bool{}, latched: map[latch]bool{}}
	if d.pins == nil {
		d.pins = &memoryPins{}
	}
	if p.shared {
		d.lock = newLock(c.LockDir, p)
	}
	return d
}

// A Device is a TPM. It is safe for concurrent use; the TPM itself does one
// thing at a time.
type Device struct {
	place
	pins    Pins
	hints   Hints
	lockDir string
	lock    *lock         // nil unless the TPM is shared without a resource manager
	turn    chan struct{} // holds one token while an operation runs

	// The rest is guarded by turn.
	wire      wire
	dialed    bool      // a connection has succeeded before
	dialedAt  time.Time // of wire
	leased    time.Time // when lock was taken; zero if it is not held
	idle      *time.Timer
	live      registry
	residents []*resident // least recently used first
	session   *session    // the HMAC session, kept and reused
	policies  []*session  // policy sessions that are kept
	parent    *parent     // of the next key, see Expect
	proven    map[latch]bool
	latched   map[latch]bool
	doubt     pending // what a command may have made whose answer was lost
	closed    bool
}

// errClosed: the Device was closed.
var errClosed = errors.New("the TPM has been closed")

// String returns what the Device was opened as.
func (d *Device) String() string { return d.name }

// Do runs fn with the TPM to itself: other users of d wait, and so do other
// processes where there is no resource manager. t works until fn returns and
// ends with ctx; it retries what the TPM asks to be retried. Objects and
// sessions that fn creates and does not flush are flushed after it.
func (d *Device) Do(ctx context.Context, fn func(t transport.TPM) error) error {
	return d.do(ctx, func(o *op) error { return fn(o) })
}

// Close flushes all that d holds in the TPM and releases it.
func (d *Device) Close() error {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := cleanupContext()
	defer cancel()
	err := d.release(ctx, false)
	if d.lock != nil {
		err = errors.Join(err, d.lock.close())
	}
	if d.closer != nil {
		err = errors.Join(err, d.closer())
	}
	return err
}

// do runs fn as one operation.
func (d *Device) do(ctx context.Context, fn func(*op) error) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	select {
	case d.turn <- struct{}{}:
		return d.use(ctx, fn)
	case <-ctx.Done():
		// What it does now was begun by this program too.
		return d.errorf("%w", late(fmt.Errorf("waiting for what it does: %w", context.Cause(ctx))))
	}
}

// doBeside runs fn as one operation in the background, before any that is begun
// later if the TPM is not in use now.
func (d *Device) doBeside(ctx context.Context, timeout time.Duration, fn func(*op) error) {
	run := d.do
	select {
	case d.turn <- struct{}{}:
		run = d.use
	default:
	}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		growStack(len(d.name))
		_ = run(ctx, fn) // the next use meets what is wrong
	}()
	runtime.Gosched() // it sends its command at once, and the caller goes on while the TPM works
}

// growStack makes a goroutine's stack as large as marshalling needs it at once,
// while there is little on it to move.
//
//go:noinline
func growStack(n int) byte {
	var space [8 << 10]byte
	return space[n%len(space)]
}

// use runs fn with the turn that it was given, and gives that back.
func (d *Device) use(ctx context.Context, fn func(*op) error) (err error) {
	defer func() { <-d.turn }()
	switch {
	case d.closed:
		return d.errorf("%w", errClosed)
	case ctx.Err() != nil: // a command that is cut off costs the connection
		return d.errorf("%w", context.Cause(ctx))
	}
	if err := d.lease(ctx); err != nil {
		return err
	}
	o := &op{d: d, ctx: ctx}
	defer func() {
		o.done = true
		if cleanErr := d.sweep(); err == nil && cleanErr != nil && !lost(cleanErr) {
			err = cleanErr
		}
		d.afterUse()
	}()
	return fn(o)
}

// errorf returns an error that names the TPM.
func (d *Device) errorf(format string, args ...any) error {
	return fmt.Errorf("TPM %s: %w", d.name, fmt.Errorf(format, args...))
}

// Times that bound what has no deadline of its own.
const (
	operationTimeout = 5 * time.Minute // making an RSA key takes minutes on some chips
	cleanupTimeout   = 10 * time.Second
)

func withDefaultTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, operationTimeout)
}

// cleanupContext is for flushing, which has to happen even when the operation's
// own context has ended.
func cleanupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), cleanupTimeout)
}

// A place is where a TPM is and how to reach it.
type place struct {
	name    string // as the user wrote it
	id      string // the same for everyone who means this TPM
	path    string // of a device or socket, "" for others
	managed bool   // by a resource manager
	shared  bool   // with other processes, and not managed
	dial    func(context.Context) (wire, error)
	closer  func() error
}

// Managed reports whether the TPM has a resource manager.
func (d *Device) Managed() bool { return d.managed }

// gone marks an error of a TPM that does not answer.
func gone(err error, hint string) error {
	return signer.WithHint(fmt.Errorf("%w: %w", signer.ErrTokenGone, err), hint)
}
