package tpm

import (
	"context"

	"github.com/google/go-tpm/tpm2"
)

// A program that signs once has the TPM work while it does something else:
// Preload begins before the signature, and Options.Brief ends after it.

// Preload begins to load the key, so that its first use finds it in the TPM, and
// returns at once. ctx bounds the loading. What fails is told by the first use.
//
// It does nothing if loading takes a password, or may count against the TPM's
// lock-out. Of the key's own password it uses none.
func (k *Key) Preload(ctx context.Context) {
	if k.file == nil || isPersistent(k.file.Parent) || k.opts.OwnerAuth != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout())
	go func() {
		defer cancel()
		// An error of do itself, such as a closed Device, the first use meets too.
		_ = k.d.do(ctx, func(o *op) error {
			if k.shut || !k.tryEmpty && !k.cred.asked {
				return nil // with a password it is loaded in another way
			}
			err := o.bring(&k.place, func() (tpm2.TPMHandle, error) { return k.load(o) })
			if err != nil && !lost(err) && ctx.Err() == nil {
				k.early = err
			}
			return nil
		})
	}()
}

// letGo flushes all that is in the TPM and gives it up, in the background.
func (d *Device) letGo() {
	go func() {
		d.turn <- struct{}{}
		defer func() { <-d.turn }()
		if d.closed {
			return
		}
		ctx, cancel := cleanupContext()
		defer cancel()
		_ = d.release(ctx, false) // what stays is in the journal, or ends with the connection
	}()
}
