package hosted

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// A child is one process of holdfast-pkcs11, from its start to its end.
type child struct {
	module string
	p      *process
	output *output

	sending sync.Mutex
	frame   []byte // of the message last sent

	mu      sync.Mutex
	next    uint32
	pending map[uint32]*call
	alarm   *time.Timer // for all calls: to set one costs a system call
	alarmAt time.Time   // zero: not set
	lib     pkcs11.Library
	leaving bool          // Bye was said
	why     error         // guarded by mu until lost is closed
	lost    chan struct{} // closed when no more replies will come
	reaped  chan struct{} // closed when the process is gone
	drained chan struct{} // closed when nothing it sent is unread
}

// A lostError is why a child is of no more use.
type lostError struct{ error }

func (e *lostError) Unwrap() []error { return []error{e.error, pkcs11.ErrModuleFailed} }

func isLost(err error) bool {
	var e *lostError
	return errors.As(err, &e)
}

// A loadError is what Hello was answered with: another child would fare no
// better.
type loadError struct{ error }

func (e *loadError) Unwrap() error { return e.error }

func isLoadError(err error) bool {
	var e *loadError
	return errors.As(err, &e)
}

func startChild(program string, cfg Config, redact func([]byte) []byte) (*child, error) {
	p, stdout, err := spawn(program, cfg)
	if err != nil {
		return nil, signer.WithHint(fmt.Errorf("start %s: %w", program, err), installHint)
	}
	c := &child{
		module: cfg.Module, p: p, pending: map[uint32]*call{},
		output: &output{log: cfg.Logger, redact: redact, done: make(chan struct{})},
		lost:   make(chan struct{}), reaped: make(chan struct{}), drained: make(chan struct{}),
	}
	c.alarm = time.AfterFunc(time.Hour, c.look)
	c.alarm.Stop()
	go c.output.read(stdout)
	go c.wait(stdout)
	go c.read()
	if err := c.send(0, wire.OpHello, &wire.Hello{Version: wire.Version, Module: cfg.Module}); err != nil {
		<-c.reaped
		return nil, c.why
	}
	return c, nil
}

// wait reaps the process, once nothing of its group is left.
func (c *child) wait(stdout *os.File) {
	status := c.p.wait()
	_ = stdout.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // a child's child may hold it
	<-c.output.done
	c.fail(c.explainExit(status))
	c.alarm.Stop()
	c.p.closePipes()
	close(c.reaped)
}

func (c *child) explainExit(status string) error {
	c.mu.Lock()
	greeted := c.lib.Path != ""
	c.mu.Unlock()
	if line := c.output.lastLine(); !greeted && line != "" {
		status += ": " + line
	}
	if crash := c.output.crash(); crash != "" {
		status = crash
	}
	return &lostError{signer.WithHint(fmt.Errorf("the PKCS#11 module %s ended its host (%s)", c.module, status),
		"update the module; try it with: pkcs11-tool --module "+c.module+" -L")}
}

// fail makes err the answer to every call. Only the first err counts.
func (c *child) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = err
		close(c.lost)
	}
}

// kill ends the process and its group at once. A nil err stands for no fault
// of a call.
func (c *child) kill(err error) {
	if err == nil {
		err = &lostError{fmt.Errorf("the host of the PKCS#11 module %s was ended", c.module)}
	}
	c.fail(err)
	c.p.kill()
}

func (c *child) isLost() bool {
	select {
	case <-c.lost:
		return true
	default:
		return false
	}
}

func (c *child) library() pkcs11.Library {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lib
}

// sendAway says goodbye, once.
func (c *child) sendAway() {
	c.mu.Lock()
	before := c.leaving
	c.leaving = true
	c.mu.Unlock()
	if !before {
		_ = c.send(0, wire.OpBye, nil) // a child that is gone needs no word
	}
}

func (c *child) isIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) == 0
}

func (c *child) isGone() bool {
	select {
	case <-c.reaped:
		return true
	default:
		return false
	}
}

// hears reports whether there is a point in sending the child anything.
func (c *child) hears() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.leaving && c.why == nil
}

// close returns when the process, which was sent away, is gone.
func (c *child) close(timeout time.Duration) {
	if !c.awaitEnd(timeout) {
		c.kill(&lostError{fmt.Errorf("the PKCS#11 module %s: %w", c.module, ErrClosed)})
		c.awaitEnd(killTime)
	}
}

// killTime is how long a killed process may take to go. One that is in the
// kernel, where no signal reaches it, may take for ever.
const killTime = 2 * time.Second

// drain waits, but not for long, until what a lost child sent last is read: it
// may tell that a PIN was right.
func (c *child) drain() {
	limit := time.NewTimer(200 * time.Millisecond)
	defer limit.Stop()
	select {
	case <-c.drained:
	case <-limit.C:
	}
}

// awaitEnd reports whether the process is gone, and waits for that.
func (c *child) awaitEnd(limit time.Duration) bool {
	end := time.NewTimer(limit)
	defer end.Stop()
	select {
	case <-c.reaped:
		return true
	case <-end.C:
		return false
	}
}

// send writes one message with one write.
func (c *child) send(id uint32, op wire.Op, m wire.Message) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	b, err := wire.Append(c.frame[:0], id, op, m)
	if err != nil {
		return err
	}
	_, err = c.p.in.Write(b)
	if op == wire.OpAnswer {
		clear(b)
	}
	if c.frame = b; cap(b) > 64<<10 {
		c.frame = nil
	}
	if err != nil {
		// The reason is the process's end, which wait tells.
		select {
		case <-c.lost:
		case <-time.After(time.Second):
			c.kill(&lostError{fmt.Errorf("write to the host of the PKCS#11 module %s: %w", c.module, err)})
		}
		return c.why
	}
	return nil
}

// read hands replies to their calls until the pipe ends.
func (c *child) read() {
	defer close(c.drained)
	r := wire.Reader{R: c.p.out}
	for {
		f, err := r.Next()
		if err == nil {
			err = c.dispatch(f)
		}
		if errors.Is(err, wire.ErrFrame) {
			c.kill(&lostError{signer.WithHint(err, installHint)})
			return
		}
		if err != nil { // the end of the process, or it is of no more use
			time.AfterFunc(500*time.Millisecond, func() { c.kill(nil) })
			return
		}
	}
}

func (c *child) dispatch(f wire.Frame) error {
	if f.ID == 0 {
		return c.welcome(f)
	}
	f.Body = append([]byte(nil), f.Body...)
	c.mu.Lock()
	call := c.pending[f.ID]
	if f.Op != wire.OpAsk && f.Op != wire.OpAccepted {
		delete(c.pending, f.ID)
	}
	c.mu.Unlock()
	if call == nil {
		return fmt.Errorf("%w: a reply to no request", wire.ErrFrame)
	}
	if f.Op == wire.OpAccepted {
		call.accepted.Add(1)
		return nil
	}
	select {
	case call.frames <- f:
		return nil
	default:
		return fmt.Errorf("%w: two replies to one request", wire.ErrFrame)
	}
}

func (c *child) welcome(f wire.Frame) error {
	var w wire.Welcome
	var e wire.Error
	switch {
	case f.Op == wire.OpReply:
		if err := wire.Decode(f.Body, &w); err != nil {
			return err
		}
		c.mu.Lock()
		c.lib = w.Library
		c.mu.Unlock()
		return nil
	case f.Op != wire.OpFail:
		return fmt.Errorf("%w: no greeting", wire.ErrFrame)
	}
	if err := wire.Decode(f.Body, &e); err != nil {
		return err
	}
	c.kill(&loadError{&e})
	return nil
}
