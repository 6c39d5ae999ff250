package tpm

import (
	"bytes"
	"context"
	"encoding/asn1"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// MaxSealed is how many bytes every TPM can seal: MAX_SYM_DATA.
const MaxSealed = 128

// SealOptions say where data is sealed. The zero value seals below the owner's
// ECC storage key, for whoever may use the TPM.
type SealOptions struct {
	// OwnerAuth is as in [Options].
	OwnerAuth AuthFunc
}

// Sealed is data that only the TPM it was sealed in gives back. It is no
// secret.
type Sealed struct {
	public, private []byte
}

// Seal seals up to [MaxSealed] bytes in the TPM. They travel encrypted.
func Seal(ctx context.Context, d *Device, data []byte, opts SealOptions) (*Sealed, error) {
	if len(data) == 0 || len(data) > MaxSealed {
		return nil, fmt.Errorf("sealing: %d bytes, where a TPM takes 1 to %d", len(data), MaxSealed)
	}
	var s *Sealed
	err := d.do(ctx, func(o *op) (err error) {
		s, err = o.seal(data, opts)
		return err
	})
	if err != nil {
		return nil, d.explain(fmt.Errorf("sealing: %w", err))
	}
	return s, nil
}

// Unseal returns what was sealed. It travels encrypted.
func (s *Sealed) Unseal(ctx context.Context, d *Device, opts SealOptions) ([]byte, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.public)
	if err != nil {
		return nil, fmt.Errorf("unsealing: %w", malformed("public part"))
	}
	k := sealedKey(d, opts)
	k.public, k.file.Private, k.place.name.Buffer = *public, s.private, nameOf(s.public)
	var data []byte
	err = d.do(ctx, func(o *op) error {
		return k.retry(o, func() error {
			data, err = o.unseal(k)
			return err
		})
	})
	if err != nil {
		return nil, d.explain(fmt.Errorf("unsealing: %w", err))
	}
	return data, nil
}

// sealedKey lends sealed data the loading part of a Key.
func sealedKey(d *Device, opts SealOptions) *Key {
	return &Key{
		d: d, name: "the sealed data", cred: &credential{}, tryEmpty: true,
		file: &KeyFile{Parent: tpm2.TPMRHOwner}, opts: Options{OwnerAuth: opts.OwnerAuth},
	}
}

func (o *op) seal(data []byte, opts SealOptions) (*Sealed, error) {
	parent, err := sealedKey(o.d, opts).primary(o, eccStorage())
	if err != nil {
		return nil, err
	}
	session, err := o.hmacSession(parent)
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: session.with(nil, true, false)},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: data}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
			Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull}}),
			Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
		}),
	}.Execute(o)
	if err != nil {
		return nil, o.d.wrapf(err, "TPM2_Create")
	}
	return &Sealed{rsp.OutPublic.Bytes(), rsp.OutPrivate.Buffer}, o.flush(parent.handle)
}

// unseal is not Key.load, for the session that encrypts the answer is best
// salted to the parent while that is loaded.
func (o *op) unseal(k *Key) ([]byte, error) {
	parent, err := k.primary(o, eccStorage())
	if err != nil {
		return nil, err
	}
	session, err := o.hmacSession(parent)
	if err != nil {
		return nil, err
	}
	h, err := k.loadBelow(o, parent)
	if ferr := o.flush(parent.handle); err == nil {
		err = ferr
	}
	if err != nil {
		return nil, k.explainLoad(err)
	}
	rsp, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: h, Name: k.place.name, Auth: session.with(nil, false, true)},
	}.Execute(o)
	if ferr := o.flush(h); err == nil {
		err = ferr
	}
	if err != nil {
		return nil, o.d.wrapf(err, "TPM2_Unseal")
	}
	return rsp.OutData.Buffer, nil
}

// Marshal returns s as a key file of the type for sealed data, in DER
// (draft-bottomley-tpm2-keys, section 3.1).
func (s *Sealed) Marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSealed)
		b.AddASN1(tag(0), func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		b.AddASN1Uint64(uint64(tpm2.TPMRHOwner))
		addSized(b, s.public)
		addSized(b, s.private)
	})
	return b.Bytes()
}

// ParseSealed reads what Marshal wrote. The error wraps signer.ErrMalformed, or
// signer.ErrUnsupportedKey for what another program sealed in another manner.
func ParseSealed(data []byte) (*Sealed, error) {
	in := cryptobyte.String(data)
	var seq, empty, public, private cryptobyte.String
	var oid asn1.ObjectIdentifier
	var parent int64
	if !in.ReadASN1(&seq, der.SEQUENCE) || !in.Empty() || !seq.ReadASN1ObjectIdentifier(&oid) {
		return nil, fmt.Errorf("sealed data: %w", malformed("not a TPM key file"))
	}
	if !oid.Equal(oidSealed) || !seq.ReadASN1(&empty, tag(0)) || !seq.ReadASN1Integer(&parent) || parent != int64(tpm2.TPMRHOwner) {
		return nil, fmt.Errorf("sealed data: %w", unsupported("not sealed below the owner's storage key without a password"))
	}
	if !seq.ReadASN1(&public, der.OCTET_STRING) || !seq.ReadASN1(&private, der.OCTET_STRING) || !seq.Empty() {
		return nil, fmt.Errorf("sealed data: %w", malformed("public or private part is missing"))
	}
	s := &Sealed{}
	for _, part := range []struct {
		in  []byte
		out *[]byte
	}{{public, &s.public}, {private, &s.private}} {
		c := cursor{part.in, true}
		*part.out = bytes.Clone(c.sized())
		if !c.ok || len(c.b) != 0 || len(*part.out) == 0 {
			return nil, fmt.Errorf("sealed data: %w", malformed("a part's size is not its length"))
		}
	}
	return s, nil
}
