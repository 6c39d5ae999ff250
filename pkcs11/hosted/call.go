package hosted

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// A call is a request that has no reply yet.
type call struct {
	frames   chan wire.Frame // an Ask, a Reply or a Fail; never two at once
	deadline time.Time       // guarded by child.mu; zero while a person is asked
	accepted atomic.Int32    // how many of the PINs given the token took
	opens    bool            // its reply holds a key
}

// call makes a request and decodes its reply into out. It answers the
// child's questions on the way. When it has no reply in time the child is
// killed, even after the caller has gone.
func (a *attempt) call(ctx context.Context, op wire.Op, m, out wire.Message) error {
	c := a.child
	call := &call{frames: make(chan wire.Frame, 1), opens: op == wire.OpOpen || op == wire.OpGenerate}
	defer func() { a.pins.accept(int(call.accepted.Load())) }()
	c.mu.Lock()
	c.next++
	id := c.next
	c.pending[id] = call
	c.expect(call, a.deadline)
	c.mu.Unlock()
	if err := c.send(id, op, m); err != nil {
		return err
	}
	for {
		var f wire.Frame
		select {
		case f = <-call.frames:
		case <-c.lost:
			c.drain()
			return c.why
		case <-ctx.Done():
			go c.abandon(id, call)
			return ctx.Err()
		}
		switch f.Op {
		case wire.OpReply:
			return wire.Decode(f.Body, out)
		case wire.OpFail:
			var e wire.Error
			if err := wire.Decode(f.Body, &e); err != nil {
				return err
			}
			return &e
		case wire.OpAsk:
			if err := a.answer(ctx, id, call, f.Body); err != nil {
				return err
			}
		default:
			c.kill(&lostError{fmt.Errorf("%w: operation %d", wire.ErrFrame, f.Op)})
			return c.why
		}
	}
}

// expect sets a call's deadline. It wants c.mu.
func (c *child) expect(call *call, by time.Time) {
	call.deadline = by
	if c.alarmAt.IsZero() || by.Before(c.alarmAt) {
		c.alarmAt = by
		c.alarm.Reset(time.Until(by))
	}
}

// look kills the child if a call is late, and otherwise sets the alarm for the
// call that will be late first.
func (c *child) look() {
	c.mu.Lock()
	var first time.Time
	for _, call := range c.pending {
		if d := call.deadline; !d.IsZero() && (first.IsZero() || d.Before(first)) {
			first = d
		}
	}
	late := !first.IsZero() && !time.Now().Before(first)
	if c.alarmAt = first; !first.IsZero() && !late {
		c.alarm.Reset(time.Until(first))
	}
	c.mu.Unlock()
	if late {
		c.kill(&lostError{signer.WithHint(fmt.Errorf("the PKCS#11 module %s did not answer in time and was ended", c.module),
			"check the device, its service and its connection; a slow one may need a longer timeout")})
	}
}

// answer asks for the PIN while the clock stands still.
func (a *attempt) answer(ctx context.Context, id uint32, call *call, body []byte) error {
	a.child.mu.Lock()
	call.deadline = time.Time{}
	a.child.mu.Unlock()
	asked := time.Now()
	var q wire.Ask
	if err := wire.Decode(body, &q); err != nil {
		a.child.kill(&lostError{err})
		return err
	}
	pin, err := a.pins.ask(ctx, q)
	a.deadline = a.deadline.Add(time.Since(asked))
	a.child.mu.Lock()
	a.child.expect(call, a.deadline)
	a.child.mu.Unlock()
	return a.child.send(id, wire.OpAnswer, &wire.Answer{PIN: pin, Fail: wire.NewError(err)})
}

// abandon waits, for a caller that has gone, for a reply that may hold a key.
// The call's deadline still holds.
func (c *child) abandon(id uint32, call *call) {
	for {
		select {
		case <-c.lost:
			return
		case f := <-call.frames:
			var opened wire.Opened
			switch {
			case f.Op == wire.OpAsk:
				_ = c.send(id, wire.OpAnswer, &wire.Answer{Fail: wire.NewError(context.Canceled)})
				continue
			case f.Op == wire.OpReply && call.opens && wire.Decode(f.Body, &opened) == nil:
				_ = c.send(0, wire.OpCloseKey, &wire.KeyRef{Key: opened.Key})
			}
			return
		}
	}
}
