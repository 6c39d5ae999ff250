package tpm

import (
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// A resident is an object that stays loaded between operations where nobody
// else needs its slot. When it has to go it is saved first, so that bringing
// it back is one cheap command that needs no parent.
type resident struct {
	handle tpm2.TPMHandle // 0 while it is not loaded
	name   tpm2.TPM2BName
	saved  *tpm2.TPMSContext
}

// bring makes sure r is loaded; load does it from the beginning.
func (o *op) bring(r *resident, load func() (tpm2.TPMHandle, error)) error {
	o.d.touch(r)
	if r.handle != 0 {
		return nil
	}
	if r.saved != nil {
		o.expect = r.name
		rsp, err := tpm2.ContextLoad{Context: *r.saved}.Execute(o)
		o.expect = tpm2.TPM2BName{}
		if err == nil {
			o.keep(r, rsp.LoadedHandle)
			return nil
		}
		// The TPM was reset, or has forgotten how to read it.
		r.saved = nil
		if codeOf(err) == 0 {
			return err
		}
	}
	h, err := load()
	if err != nil {
		return err
	}
	o.keep(r, h)
	return nil
}

func (o *op) keep(r *resident, h tpm2.TPMHandle) {
	r.handle = h
	o.d.live.keep(h, true)
}

// touch marks r as the last one used.
func (d *Device) touch(r *resident) {
	if n := len(d.residents); n > 0 && d.residents[n-1] == r {
		return
	}
	d.drop(r)
	d.residents = append(d.residents, r)
}

func (d *Device) drop(r *resident) {
	d.residents = slices.DeleteFunc(d.residents, func(x *resident) bool { return x == r })
}

// park saves r and flushes it.
func (o *op) park(r *resident) error {
	h := r.handle
	if h == 0 {
		return nil
	}
	if r.saved == nil {
		if rsp, err := (tpm2.ContextSave{SaveHandle: h}).Execute(o); err == nil {
			r.saved = &rsp.Context
		} else if lost(err) {
			return err
		}
	}
	return o.flush(h)
}

// evict frees a slot that a resident other than the one just wanted holds, or
// a policy session other than the one last started, or reports that there is
// none.
func (d *Device) evict(o *op, rc tpm2.TPMRC) bool {
	if o.evicting {
		return false
	}
	o.evicting = true
	defer func() { o.evicting = false }()
	if rc == tpm2.TPMRCSessionMemory || rc == tpm2.TPMRCSessionHandles {
		return len(d.policies) > 1 && o.flush(d.policies[0].handle) == nil
	}
	for i, r := range d.residents {
		if r.handle != 0 && i < len(d.residents)-1 {
			return o.park(r) == nil
		}
	}
	return false
}
