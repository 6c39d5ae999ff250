package tpm

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Contents are what a TPM keeps.
type Contents struct {
	Keys    []PersistentKey
	Indexes []Index
}

// A PersistentKey is a key at a persistent handle.
type PersistentKey struct {
	Handle tpm2.TPMHandle

	// Key is nil if this package cannot sign with it.
	Key crypto.PublicKey

	// Public is the public area; nil, as Key is, if it does not parse.
	Public *tpm2.TPMTPublic

	// Err says why Key is nil.
	Err error
}

// An Index is an NV index that holds certificates, or would have to be read
// with a password to know.
type Index struct {
	Handle       tpm2.TPMHandle
	Certificates []*x509.Certificate

	// Guarded is set for an index that was not read: it may want a password,
	// and a wrong one counts against the TPM's lock-out.
	Guarded bool
}

// Contents lists the persistent keys and the NV indexes with certificates. No
// password is presented to the TPM, and none that is wrong is counted.
func (d *Device) Contents(ctx context.Context) (*Contents, error) {
	var c Contents
	var indexes []tpm2.TPMHandle
	err := d.do(ctx, func(o *op) error {
		c.Keys = nil
		handles, err := o.handles(tpm2.TPMHTPersistent)
		if err != nil {
			return err
		}
		for _, h := range handles {
			k, err := o.persistentKey(h)
			if err != nil {
				return err
			}
			c.Keys = append(c.Keys, k)
		}
		indexes, err = o.handles(tpm2.TPMHTNVIndex)
		return err
	})
	if err != nil {
		return nil, d.explain(fmt.Errorf("listing the TPM's contents: %w", err))
	}
	for _, h := range indexes {
		if err := d.addIndex(ctx, h, &c); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func (o *op) persistentKey(h tpm2.TPMHandle) (PersistentKey, error) {
	k := PersistentKey{Handle: h}
	_, area, err := o.public(h)
	if err != nil {
		return k, err
	}
	if k.Public, k.Err = parsePublic(area); k.Err != nil {
		return k, nil
	}
	if k.Err = checkUsable(k.Public); k.Err == nil {
		k.Key, k.Err = publicKey(k.Public)
	}
	return k, nil
}

// addIndex adds the index if it holds certificates.
func (d *Device) addIndex(ctx context.Context, h tpm2.TPMHandle, c *Contents) error {
	guarded := false
	err := d.do(ctx, func(o *op) error {
		n, err := o.openNV(h, NVOptions{})
		if err != nil {
			return err
		}
		a := n.public.Attributes
		guarded = !a.AuthRead || !a.NoDA
		return nil
	})
	if err != nil {
		return d.explain(fmt.Errorf("NV index %#x: %w", uint32(h), err))
	}
	if guarded {
		c.Indexes = append(c.Indexes, Index{Handle: h, Guarded: true})
		return nil
	}
	certs, err := ReadCertificates(ctx, d, h, NVOptions{})
	if err != nil || len(certs) == 0 {
		return ctx.Err() // something else than certificates, or with a password
	}
	c.Indexes = append(c.Indexes, Index{Handle: h, Certificates: certs})
	return nil
}

// handles returns all handles of a type, ascending.
func (o *op) handles(kind tpm2.TPMHT) ([]tpm2.TPMHandle, error) {
	var all []tpm2.TPMHandle
	for next := tpm2.TPMHandle(kind) << 24; ; {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(next), PropertyCount: 64}.Execute(o)
		if err != nil {
			return nil, o.d.wrapf(err, "listing handles")
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, o.d.wrapf(err, "listing handles")
		}
		all = append(all, list.Handle...)
		if !rsp.MoreData || len(list.Handle) == 0 {
			return all, nil
		}
		next = all[len(all)-1] + 1
	}
}
