package tpm

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// NVOptions say how to use an NV index. The zero value serves one that is read
// without a password.
type NVOptions struct {
	// Auth returns the index's authorization value; nil means that it is empty.
	Auth AuthFunc

	// OwnerAuth returns the owner hierarchy's; nil means that it is empty.
	OwnerAuth AuthFunc

	// Overwrite lets WriteCertificates write to an index that exists.
	Overwrite bool
}

// maxNV bounds what is read from an index.
const maxNV = 1 << 16

// ReadCertificates reads the certificates, in DER or PEM, that an NV index
// holds; what pads the index after them is dropped. It returns an error that
// wraps signer.ErrCertificateNotFound if there is no such index, or nothing in
// it.
func ReadCertificates(ctx context.Context, d *Device, index tpm2.TPMHandle, opts NVOptions) ([]*x509.Certificate, error) {
	data, err := ReadNV(ctx, d, index, opts)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("NV index %#x: %w", uint32(index), err)
	}
	return certs, nil
}

// ReadNV reads all of an NV index.
func ReadNV(ctx context.Context, d *Device, index tpm2.TPMHandle, opts NVOptions) ([]byte, error) {
	var data []byte
	err := d.do(ctx, func(o *op) error {
		n, err := o.openNV(index, opts)
		if err != nil {
			return err
		}
		data, err = n.read()
		return err
	})
	if err != nil {
		return nil, d.explain(fmt.Errorf("NV index %#x: %w", uint32(index), err))
	}
	return data, nil
}

// WriteCertificates writes certificates to an NV index, in DER, the leaf first.
// An index that does not exist is defined, with some room for renewed ones to be
// longer: the owner may write it and everyone may read it. One that exists is an
// error that wraps [ErrHandleInUse], unless Overwrite is set and there is room.
// After an error a new index is not left behind.
func WriteCertificates(ctx context.Context, d *Device, index tpm2.TPMHandle, certs []*x509.Certificate, opts NVOptions) error {
	var data []byte
	for _, c := range certs {
		data = append(data, c.Raw...)
	}
	if len(data) == 0 || len(data) > maxNV-1 {
		return fmt.Errorf("NV index %#x: %d bytes of certificates", uint32(index), len(data))
	}
	err := d.do(ctx, func(o *op) error {
		n, err := o.openNV(index, opts)
		switch {
		case errors.Is(err, signer.ErrCertificateNotFound):
			return o.defineAndWrite(index, data, opts)
		case err != nil:
			return err
		case !opts.Overwrite:
			return signer.WithHint(ErrHandleInUse, "choose another index, or say that it may be overwritten")
		case n.public.Attributes.NT != tpm2.TPMNTOrdinary:
			return signer.WithHint(unsupported("a counter, PINs or an index that is extended, not one of plain data"), "choose another index")
		case int(n.public.DataSize) < len(data):
			return signer.WithHint(fmt.Errorf("%d bytes do not fit into its %d", len(data), n.public.DataSize),
				fmt.Sprintf("choose another index, or remove this one: tpm2_nvundefine -C o %#x", uint32(index)))
		}
		return n.fill(data)
	})
	return d.wrapf(err, "NV index %#x", uint32(index))
}

// An nvIndex is an index in use.
type nvIndex struct {
	o             *op
	handle        tpm2.TPMHandle
	name          tpm2.TPM2BName
	public        *tpm2.TPMSNVPublic
	chunk         int
	owner, itself *credential
}

func isNV(h tpm2.TPMHandle) bool { return tpm2.TPMHT(h>>24) == tpm2.TPMHTNVIndex }

func (o *op) openNV(index tpm2.TPMHandle, opts NVOptions) (*nvIndex, error) {
	if !isNV(index) {
		return nil, signer.WithHint(fmt.Errorf("%w: not an NV index", signer.ErrMalformed), "NV indexes go from 0x01000000 to 0x01ffffff")
	}
	n := &nvIndex{o: o, handle: index,
		owner:  ofHierarchy(tpm2.TPMRHOwner, opts.OwnerAuth, o.d.hints.Owner),
		itself: &credential{what: fmt.Sprintf("NV index %#x", uint32(index)), ask: opts.Auth},
	}
	return n, n.reopen()
}

// reopen reads the index's public area, which the first write changes.
func (n *nvIndex) reopen() error {
	rsp, err := tpm2.NVReadPublic{NVIndex: n.handle}.Execute(n.o)
	if rc := codeOf(err); rc == tpm2.TPMRCHandle || rc == tpm2.TPMRCValue {
		return signer.WithHint(fmt.Errorf("%w there", signer.ErrCertificateNotFound), "list what the TPM has: holdfast list --tpm")
	}
	if err != nil {
		return err
	}
	if n.public, err = rsp.NVPublic.Contents(); err != nil {
		return malformed("its public area")
	}
	name, err := tpm2.NVName(n.public)
	if err != nil {
		return unsupported("its name algorithm %#x", uint16(n.public.NameAlg))
	}
	n.name = *name
	n.itself.name, n.itself.da = name.Buffer, !n.public.Attributes.NoDA
	if n.chunk > 0 {
		return nil
	}
	values, err := n.o.properties(tpm2.TPMPTNVBufferMax, 1)
	if err != nil {
		return err
	}
	if n.chunk = int(values[tpm2.TPMPTNVBufferMax]); n.chunk == 0 || n.chunk > 4096 {
		n.chunk = 512
	}
	return nil
}

// authorize returns who reads or writes: the index itself or the owner. Where
// both may, and no password of the index's is given, it is the owner if that
// has one, or if a wrong one would cost the index a lock-out try.
func (n *nvIndex) authorize(itself, owner bool, in, out bool) (tpm2.AuthHandle, *credential, error) {
	c, h := n.itself, tpm2.AuthHandle{Handle: n.handle, Name: n.name}
	switch {
	case owner && (!itself || n.itself.ask == nil && (n.owner.ask != nil || n.itself.da)):
		c, h = n.owner, tpm2.AuthHandle{Handle: tpm2.TPMRHOwner}
	case !itself:
		return h, nil, unsupported("it is used by policy or platform only")
	}
	var err error
	h.Auth, err = n.o.authorize(c, nil, in, out)
	return h, c, err
}

func (n *nvIndex) read() ([]byte, error) {
	data := make([]byte, 0, n.public.DataSize)
	a := n.public.Attributes
	if !a.Written {
		return nil, fmt.Errorf("%w: nothing was written to it yet", signer.ErrCertificateNotFound)
	}
	for len(data) < int(n.public.DataSize) {
		auth, c, err := n.authorize(a.AuthRead, a.OwnerRead, false, true)
		if err != nil {
			return nil, err
		}
		rsp, err := tpm2.NVRead{
			AuthHandle: auth,
			NVIndex:    tpm2.NamedHandle{Handle: n.handle, Name: n.name},
			Size:       uint16(min(n.chunk, int(n.public.DataSize)-len(data))), //nolint:gosec // a size of the TPM's
			Offset:     uint16(len(data)),                                      //nolint:gosec // below DataSize
		}.Execute(n.o)
		if err = n.o.judge(c, err); err != nil {
			return nil, fmt.Errorf("reading: %w", err)
		}
		if len(rsp.Data.Buffer) == 0 {
			return nil, errors.New("reading: the TPM returned nothing")
		}
		data = append(data, rsp.Data.Buffer...)
	}
	return data, nil
}

func (n *nvIndex) write(data []byte) error {
	a := n.public.Attributes
	for at := 0; at < len(data); at += n.chunk {
		auth, c, err := n.authorize(a.AuthWrite, a.OwnerWrite, true, false)
		if err != nil {
			return err
		}
		_, err = tpm2.NVWrite{
			AuthHandle: auth,
			NVIndex:    tpm2.NamedHandle{Handle: n.handle, Name: n.name},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+n.chunk, len(data))]},
			Offset:     uint16(at), //nolint:gosec // below DataSize
		}.Execute(n.o)
		if err = n.o.judge(c, err); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		if at == 0 {
			if err := n.reopen(); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseCertificates reads certificates and drops what pads them.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var ders [][]byte
	if bytes.Contains(data, []byte("-----BEGIN")) {
		for b, rest := pem.Decode(data); b != nil; b, rest = pem.Decode(rest) {
			if b.Type == "CERTIFICATE" {
				ders = append(ders, b.Bytes)
			}
		}
	} else {
		for len(data) > 0 && data[0] == 0x30 {
			n := elementSize(data)
			if n > len(data) {
				return nil, malformed("a certificate is cut short")
			}
			ders, data = append(ders, data[:n]), data[n:]
		}
	}
	var certs []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, malformed("certificate %d: %v", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w in it", signer.ErrCertificateNotFound)
	}
	return certs, nil
}

// elementSize returns the size of a DER element with its header.
func elementSize(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	if b[1] < 0x80 {
		return 2 + int(b[1])
	}
	n := int(b[1] & 0x7f)
	if n == 0 || n > 3 || len(b) < 2+n {
		return len(b) + 1
	}
	size := 0
	for _, x := range b[2 : 2+n] {
		size = size<<8 | int(x)
	}
	return 2 + n + size
}
