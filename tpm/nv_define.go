package tpm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// ParseNVIndex reads a reference to an NV index: "handle:0x01800001",
// "handle:01800001" or without "handle:".
func ParseNVIndex(ref string) (tpm2.TPMHandle, error) {
	s := ref
	if scheme, rest, ok := strings.Cut(s, ":"); ok && strings.EqualFold(scheme, signer.SchemeHandle) {
		s = rest
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X"), 16, 32)
	if err != nil || !isNV(tpm2.TPMHandle(n)) {
		return 0, signer.WithHint(fmt.Errorf("%q: %w: not an NV index", ref, signer.ErrMalformed),
			"NV indexes go from 0x01000000 to 0x01ffffff, the owner's from 0x01800000 to 0x01bfffff: handle:0x01800001")
	}
	return tpm2.TPMHandle(n), nil
}

// nvRoom is what an index is defined larger than needed: the next certificate
// for the same key differs by a few bytes.
const nvRoom = 64

// defineAndWrite defines an index for data. If it cannot be filled it is
// undefined again.
func (o *op) defineAndWrite(index tpm2.TPMHandle, data []byte, opts NVOptions) error {
	n, err := o.defineNV(index, len(data), opts)
	if err != nil {
		return err
	}
	if err = n.fill(data); err != nil {
		// With a context of its own: the operation's may be what ended.
		ctx, cancel := cleanupContext()
		defer cancel()
		undo := *o
		undo.ctx, n.o = ctx, &undo
		if uerr := undo.undefineNV(n); uerr != nil {
			err = errors.Join(err, fmt.Errorf("undefining it again: %w", uerr))
		}
	}
	return err
}

// fill writes data, and zeros to the index's end.
func (n *nvIndex) fill(data []byte) error {
	padded := make([]byte, n.public.DataSize)
	copy(padded, data)
	return n.write(padded)
}

func (o *op) defineNV(index tpm2.TPMHandle, size int, opts NVOptions) (*nvIndex, error) {
	values, err := o.properties(tpm2.TPMPTNVIndexMax, 1)
	if err != nil {
		return nil, err
	}
	if most := int(values[tpm2.TPMPTNVIndexMax]); most > 0 {
		if size > most {
			return nil, signer.WithHint(fmt.Errorf("defining it: %d bytes, and an index of this TPM has %d at most", size, most),
				"write fewer certificates: a chain can lie in a file, it is no secret")
		}
		size = min(size+nvRoom, most, maxNV-1)
	}
	c := ofHierarchy(tpm2.TPMRHOwner, opts.OwnerAuth, o.d.hints.Owner)
	auth, err := o.authorize(c, nil, true, false)
	if err != nil {
		return nil, err
	}
	_, err = tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: auth},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(size), //nolint:gosec // checked
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true, NT: tpm2.TPMNTOrdinary},
		}),
	}.Execute(o)
	if err = o.judge(c, err); err != nil {
		if codeOf(err) == tpm2.TPMRCNVSpace {
			return nil, signer.WithHint(fmt.Errorf("defining it: %w", err), "free another index: tpm2_nvundefine")
		}
		return nil, fmt.Errorf("defining it: %w", err)
	}
	return o.openNV(index, opts)
}

func (o *op) undefineNV(n *nvIndex) error {
	if err := n.reopen(); err != nil { // its name may have changed since
		return err
	}
	auth, err := o.authorize(n.owner, nil, false, false)
	if err != nil {
		return err
	}
	_, err = tpm2.NVUndefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: auth},
		NVIndex:    tpm2.NamedHandle{Handle: n.handle, Name: n.name},
	}.Execute(o)
	return o.judge(n.owner, err)
}
