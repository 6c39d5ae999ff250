package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// A loaded is an object or session that is in the TPM because of us.
type loaded struct {
	handle tpm2.TPMHandle
	name   []byte // of an object, if known
	kept   bool   // past the end of the operation that loaded it
}

// A registry lists what is loaded, in the order of its creation.
type registry []loaded

func (r *registry) add(l loaded) { *r = append(*r, l) }

func (r *registry) remove(h tpm2.TPMHandle) {
	*r = slices.DeleteFunc(*r, func(l loaded) bool { return l.handle == h })
}

func (r registry) keep(h tpm2.TPMHandle, kept bool) {
	for i := range r {
		if r[i].handle == h {
			r[i].kept = kept
		}
	}
}

// announce is called before a command is sent. If the command makes a handle
// that has to outlive a SIGKILL of this process, it is written down first.
func (d *Device) announce(o *op, command []byte) (pending, error) {
	if d.lock == nil {
		return pending{}, nil
	}
	var p pending
	switch commandCode(command) {
	case tpm2.TPMCCLoad:
		p = pending{kind: pendingObject, name: nameInLoad(command, 4)}
	case tpm2.TPMCCLoadExternal:
		p = pending{kind: pendingObject, name: nameInLoad(command, 0)}
	case tpm2.TPMCCContextLoad:
		p = pending{kind: pendingObject, name: o.expect.Buffer}
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCCreateLoaded:
		p = pending{kind: pendingTemplate, name: templateIn(command)}
	case tpm2.TPMCCStartAuthSession:
		before, err := o.handles(tpm2.TPMHTLoadedSession) // anyone's
		if err != nil {
			return p, err
		}
		p = pending{kind: pendingSession, before: before}
	default:
		return p, nil
	}
	return p, d.lock.record(d.live, p)
}

// account is called with every response. It lists what the command made, and
// strikes what it ended.
func (d *Device) account(p pending, command, rsp []byte) {
	if responseCode(rsp) == tpm2.TPMRCSuccess {
		d.accountSuccess(p, command, rsp)
	} else if p.kind == "" {
		return
	}
	if d.lock != nil && (p.kind != "" || ends(command)) {
		d.lock.recordBestEffort(d.live, d.doubt)
	}
}

func (d *Device) accountSuccess(p pending, command, rsp []byte) {
	if h := madeHandle(command, rsp); h != 0 {
		d.live.remove(h) // whatever had that handle is gone
		d.unkeep(h)
		l := loaded{handle: h, name: nameInResponse(commandCode(command), rsp)}
		if l.name == nil && p.kind == pendingObject {
			l.name = p.name // ContextLoad's response has none
		}
		d.live.add(l)
	}
	switch commandCode(command) {
	case tpm2.TPMCCFlushContext, tpm2.TPMCCSequenceComplete:
		if len(command) >= headerSize+4 {
			d.live.remove(tpm2.TPMHandle(binary.BigEndian.Uint32(command[headerSize:])))
		}
	}
	for _, h := range endedSessions(command) {
		d.live.remove(h)
	}
}

// ends reports whether the command can end a handle.
func ends(command []byte) bool {
	switch commandCode(command) {
	case tpm2.TPMCCFlushContext, tpm2.TPMCCSequenceComplete:
		return true
	}
	return len(endedSessions(command)) > 0
}

// flush flushes a handle; one that is gone already is none.
func (o *op) flush(h tpm2.TPMHandle) error {
	o.d.unkeep(h)
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(o)
	if absent(err) {
		o.d.live.remove(h)
		return nil
	}
	return o.d.wrapf(err, "flushing handle %#x", uint32(h))
}

// absent reports whether the TPM says that it has no such handle.
func absent(err error) bool {
	rc := codeOf(err)
	return rc == tpm2.TPMRCHandle || rc == tpm2.TPMRCValue || rc >= tpm2.TPMRCReferenceH0 && rc <= tpm2.TPMRCReferenceS6
}

// unkeep lets go of what stands for the handle in this process. Should it stay in
// the TPM, because flushing it fails, the sweep tries again.
func (d *Device) unkeep(h tpm2.TPMHandle) {
	d.live.keep(h, false)
	for _, r := range d.residents {
		if r.handle == h {
			r.handle = 0
		}
	}
	d.policies = slices.DeleteFunc(d.policies, func(s *session) bool { return s.handle == h })
	if d.session != nil && d.session.handle == h {
		d.session = nil
	}
	if d.parent != nil && d.parent.handle == h {
		d.parent = nil
	}
}

// sweep flushes, last first, what an operation left behind and nobody keeps,
// whether or not its context has ended.
func (d *Device) sweep() error {
	if d.doubt.kind != "" {
		return nil
	}
	return d.flushAll(func(l loaded) bool { return !l.kept })
}

func (d *Device) flushAll(which func(loaded) bool) error {
	if !slices.ContainsFunc(d.live, which) {
		return nil
	}
	ctx, cancel := cleanupContext()
	defer cancel()
	o := &op{d: d, ctx: ctx}
	var all error
	for _, l := range slices.Backward(slices.Clone(d.live)) {
		if which(l) {
			if err := o.flush(l.handle); err != nil {
				all = errors.Join(all, err)
				if lost(err) {
					break
				}
			}
		}
	}
	return all
}

// forget drops all that was loaded, which is gone from the TPM.
func (d *Device) forget() {
	d.live = nil
	for _, r := range d.residents {
		r.handle, r.saved = 0, nil
	}
	d.session, d.policies, d.parent = nil, nil, nil
	d.doubt = pending{}
	if d.lock != nil && !d.leased.IsZero() {
		d.lock.recordBestEffort(nil, d.doubt)
	}
}

// fits reports whether a loaded object is the one that p announced.
func (p pending) fits(name, public []byte) bool {
	switch p.kind {
	case pendingObject:
		return len(p.name) > 0 && bytes.Equal(name, p.name)
	case pendingTemplate:
		return len(p.name) > 0 && bytes.HasPrefix(public, p.name)
	}
	return false
}
