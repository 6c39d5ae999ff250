package tpm

import (
	"context"
	"fmt"

	"github.com/holdfast-iam/holdfast/signer"
)

// Probe returns an error if the TPM does not load the key: it belongs to another
// TPM or another parent, or the TPM was cleared. The key's own authorization
// value is neither asked for nor presented, and its policy is not executed.
//
// A parent under protection against dictionary attacks has to have
// Options.ParentAuth: without it the error wraps signer.ErrPINRequired and
// nothing is presented.
func (k *Key) Probe(ctx context.Context) error {
	err := k.d.do(ctx, func(o *op) error {
		switch {
		case k.shut:
			return errKeyClosed
		case k.file == nil:
			_, err := o.persistent(k.handle)
			return err
		case k.place.handle != 0:
			return nil
		case isPersistent(k.file.Parent) && k.opts.ParentAuth == nil:
			parent, err := o.persistent(k.file.Parent)
			if err != nil {
				return fmt.Errorf("its parent: %w", err)
			}
			if !parent.public.ObjectAttributes.NoDA {
				return fmt.Errorf("its parent %#x: %w", uint32(k.file.Parent), signer.ErrPINRequired)
			}
		}
		h, err := k.load(o)
		if err != nil {
			return err
		}
		return o.flush(h)
	})
	if err != nil {
		return k.d.explain(fmt.Errorf("%s: %w", k.name, err))
	}
	return nil
}
