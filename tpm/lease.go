package tpm

import (
	"context"
	"errors"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Where a TPM is shared without a resource manager, a Device holds it on
// lease: lock and connection are kept while it is busy, for that is what makes
// a signature cost one command, and given up
//
//   - idleAfter after the last use;
//   - after slice, at the end of an operation, if another process waits for
//     the lock.
//
// A program that waits at the socket without the lock is let in every
// reconnectAfter.
const (
	idleAfter      = 50 * time.Millisecond
	slice          = 30 * time.Millisecond
	reconnectAfter = 500 * time.Millisecond
)

// lease takes the lock unless it is held, and clears up after a process that
// was killed while it had it.
func (d *Device) lease(ctx context.Context) error {
	if d.lock == nil {
		return nil
	}
	if d.idle != nil {
		d.idle.Stop()
	}
	if !d.leased.IsZero() {
		return nil
	}
	left, err := d.lock.acquire(ctx)
	if err != nil {
		return d.errorf("%w", err)
	}
	d.leased = time.Now()
	if left.empty() {
		return nil
	}
	if err := d.clearUp(ctx, left); err != nil {
		d.abandon()
		return err
	}
	d.lock.recordBestEffort(nil, pending{})
	return nil
}

// afterUse gives the lease up, now or soon.
func (d *Device) afterUse() {
	if d.lock == nil || d.leased.IsZero() {
		return
	}
	if d.doubt.kind != "" {
		d.abandon()
		return
	}
	if time.Since(d.leased) > slice && d.lock.contended() {
		ctx, cancel := cleanupContext()
		defer cancel()
		_ = d.release(ctx, true)
		d.lock.yield()
		return
	}
	if d.wire != nil && time.Since(d.dialedAt) > reconnectAfter {
		_ = d.wire.close()
		d.wire = nil
	}
	if d.idle == nil {
		d.idle = time.AfterFunc(idleAfter, d.onIdle)
	} else {
		d.idle.Reset(idleAfter)
	}
}

// abandon gives the lease up as a kill would: the journal stays, with what the
// command that was cut off may have made, and the next holder clears up.
func (d *Device) abandon() {
	d.hangUp()
	d.drain()
	d.leased = time.Time{}
	_ = d.lock.release(true)
}

func (d *Device) onIdle() {
	select {
	case d.turn <- struct{}{}:
	default:
		return // in use; that use will start the timer again
	}
	defer func() { <-d.turn }()
	if d.closed || d.leased.IsZero() {
		return
	}
	ctx, cancel := cleanupContext()
	defer cancel()
	_ = d.release(ctx, true)
}

// release flushes everything, in reverse order, and gives up connection and
// lock. With save, objects are saved first for the next use.
func (d *Device) release(ctx context.Context, save bool) error {
	if d.idle != nil {
		d.idle.Stop()
	}
	if save {
		o := &op{d: d, ctx: ctx}
		for _, r := range d.residents {
			if perr := o.park(r); perr != nil && lost(perr) {
				break
			}
		}
	}
	err := d.flushAll(func(loaded) bool { return true })
	// Without a resource manager, what is loaded outlives a connection that
	// breaks. It stays in the journal.
	dirty := err != nil && (!lost(err) || d.lock != nil && errors.Is(err, errBroken))
	if lost(err) {
		err = nil
	}
	if d.wire != nil {
		_ = d.wire.close()
		d.wire = nil
	}
	d.drain()
	if d.lock != nil && !d.leased.IsZero() {
		d.leased = time.Time{}
		err = errors.Join(err, d.lock.release(dirty))
	}
	return err
}

// drain drops what stands for handles in this process. What of it is still in
// the TPM is in the journal; what was saved is good for the next use.
func (d *Device) drain() {
	d.live, d.session, d.policies, d.parent, d.doubt = nil, nil, nil, nil, pending{}
	for _, r := range d.residents {
		r.handle = 0
	}
}

func isTransient(h tpm2.TPMHandle) bool { return tpm2.TPMHT(h>>24) == tpm2.TPMHTTransient }

// public reads the Name and public area of a loaded object.
func (o *op) public(h tpm2.TPMHandle) (name, public []byte, err error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(o)
	if err != nil {
		return nil, nil, o.d.wrapf(err, "reading the public area of %#x", uint32(h))
	}
	public = rsp.OutPublic.Bytes()
	return nameOf(public), public, nil
}
