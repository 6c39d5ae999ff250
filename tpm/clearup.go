package tpm

import (
	"bytes"
	"context"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// clearUp flushes what a process that was killed, or that lost its connection,
// left in the TPM: what it had written down, if it is still the same, and what
// it was about to make.
func (d *Device) clearUp(ctx context.Context, left journal) error {
	o := &op{d: d, ctx: ctx}
	d.live, d.doubt = slices.Clone(left.loaded), left.pending // a flush shifts what is live
	for _, l := range left.loaded {
		mine, err := o.same(l)
		if err != nil {
			return err
		}
		if !mine {
			d.live.remove(l.handle)
		} else if err := o.flush(l.handle); err != nil {
			return err
		}
	}
	return o.settle()
}

// same reports whether a handle still is what the journal says: after a reset
// of the TPM it may be someone else's. Sessions have nothing to tell them by,
// and hash sequences have no more than being one.
func (o *op) same(l loaded) (bool, error) {
	if !isTransient(l.handle) {
		return true, nil
	}
	switch name, _, err := o.public(l.handle); {
	case unanswered(err):
		return false, err
	case err != nil:
		return codeOf(err) == tpm2.TPMRCSequence && len(l.name) == 0, nil
	default:
		return len(l.name) > 0 && bytes.Equal(name, l.name), nil
	}
}

// unanswered tells an error that says nothing of the handle asked for.
func unanswered(err error) bool {
	rc := codeOf(err)
	return err != nil && (rc == 0 || transient(rc))
}

// settle finds and flushes what a command made whose answer was lost, before
// another one is sent.
func (o *op) settle() error {
	if o.d.doubt.kind == "" || o.settling {
		return nil
	}
	o.settling = true
	defer func() { o.settling = false }()
	h, err := o.made(o.d.doubt)
	if err != nil {
		return err
	}
	if h != 0 {
		if err := o.flush(h); err != nil {
			return err
		}
	}
	o.d.doubt = pending{}
	return nil
}

// made returns the handle that a pending command made, or 0.
func (o *op) made(p pending) (tpm2.TPMHandle, error) {
	known := map[tpm2.TPMHandle]bool{}
	for _, h := range p.before {
		known[h] = true
	}
	for _, l := range o.d.live {
		known[l.handle] = true
	}
	kind := tpm2.TPMHTTransient
	if p.kind == pendingSession {
		kind = tpm2.TPMHTLoadedSession
	}
	now, err := o.handles(kind)
	if err != nil {
		return 0, err
	}
	for _, h := range now {
		if known[h] {
			continue
		}
		if p.kind == pendingSession {
			return h, nil
		}
		switch name, public, err := o.public(h); {
		case unanswered(err):
			return 0, err
		case err == nil && p.fits(name, public):
			return h, nil
		}
	}
	return 0, nil
}
