package tpm

import (
	"context"
	"encoding/asn1"
	"encoding/pem"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// A program that signs once has the TPM work while it does something else:
// Expect and Preload begin before the signature, and Options.Brief ends after
// it.

// A parent is a primary key that was made before it was asked for.
type parent struct {
	*object
	rsa bool
}

// Expect begins to make the parent of the key in a key file, in PEM, for a Key
// that will be opened in a moment, and returns at once. It does nothing, and
// returns false, if using the key may take a password, or if the key has a
// policy or a persistent parent. Whatever fails, the Key meets again. The parent
// is flushed when the Device gives the TPM up, if no Key has taken it. ctx should
// not end before that without need, for a command that is cut off leaves its work
// in the TPM until the next use.
func (d *Device) Expect(ctx context.Context, keyFile []byte, timeout time.Duration) bool {
	hierarchy, rsa, ok := parentIn(keyFile)
	if !ok {
		return false
	}
	d.doBeside(ctx, timeout, func(o *op) error {
		ob, err := o.createPrimary(hierarchy, emptyAuth(), parentTemplates(rsa)[0])
		if err != nil || d.parent != nil {
			return err // a second one is swept away
		}
		d.live.keep(ob.handle, true)
		d.parent = &parent{ob, rsa}
		return nil
	})
	return true
}

// parentIn reads what it has to of a key file: whether the key is used without
// a password, and which primary key it hangs from.
func parentIn(text []byte) (hierarchy tpm2.TPMHandle, rsa, ok bool) {
	b, rest := pem.Decode(text)
	for b != nil && b.Type != PEMType {
		b, rest = pem.Decode(rest)
	}
	if b == nil {
		return 0, false, false
	}
	s := cryptobyte.String(b.Bytes)
	var f KeyFile
	var in, handle cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1ObjectIdentifier(&oid) || f.parseTagged(&in) != nil || !in.ReadASN1(&handle, der.INTEGER) {
		return 0, false, false
	}
	hierarchy, err := readParent(handle)
	ok = err == nil && !isPersistent(hierarchy) && f.EmptyAuth != nil && *f.EmptyAuth && f.Policy == nil && f.AuthPolicy == nil
	return hierarchy, f.RSAParent, ok
}

// takeParent returns the parent that was made before, or nil. Another one is
// flushed.
func (o *op) takeParent(hierarchy tpm2.TPMHandle, rsa bool) *object {
	p := o.d.parent
	if p == nil {
		return nil
	}
	o.d.parent = nil
	if p.hierarchy == hierarchy && p.rsa == rsa {
		o.d.live.keep(p.handle, false)
		return p.object
	}
	_ = o.flush(p.handle) // or the sweep does it
	o.d.live.keep(p.handle, false)
	return nil
}

// Preload begins to load the key, so that its first use finds it in the TPM, and
// returns at once. ctx bounds the loading. What fails is told by the first use.
//
// It does nothing if loading takes a password, or may count against the TPM's
// lock-out. Of the key's own password it uses none.
func (k *Key) Preload(ctx context.Context) {
	if k.file == nil || isPersistent(k.file.Parent) || k.opts.OwnerAuth != nil {
		return
	}
	k.d.doBeside(ctx, k.timeout(), func(o *op) error {
		if k.shut || !k.tryEmpty && !k.cred.asked {
			return nil // with a password it is loaded in another way
		}
		err := o.bring(&k.place, func() (tpm2.TPMHandle, error) { return k.load(o) })
		if err != nil && !lost(err) && o.ctx.Err() == nil {
			k.early = err
		}
		return nil
	})
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
