package tpm

import (
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Marshal returns the key file in DER. Where readers differ it writes what all
// of them understand: emptyAuth is always there, for tpm2-openssl takes an
// absent one for TRUE, presents an empty authorization value and costs a
// lock-out try; the description never is, for it cannot read that; handles are
// positive.
func (f *KeyFile) Marshal() ([]byte, error) {
	if f.EmptyAuth == nil {
		return nil, errors.New("TPM key: whether its authorization value is empty has to be known before it is written")
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		if f.Importable {
			b.AddASN1ObjectIdentifier(oidImportable)
		} else {
			b.AddASN1ObjectIdentifier(oidLoadable)
		}
		b.AddASN1(tag(0), func(b *cryptobyte.Builder) { b.AddASN1Boolean(*f.EmptyAuth) })
		addTagged(b, 1, f.Policy)
		if f.Importable {
			b.AddASN1(tag(2), func(b *cryptobyte.Builder) { addSized(b, f.Secret) })
		}
		addTagged(b, 3, f.AuthPolicy)
		if f.RSAParent {
			b.AddASN1(tag(5), func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		}
		b.AddASN1Uint64(uint64(f.Parent))
		addSized(b, tpm2.Marshal(f.Public))
		addSized(b, f.Private)
	})
	return b.Bytes()
}

// PEM returns the key file in PEM.
func (f *KeyFile) PEM() ([]byte, error) {
	b, err := f.Marshal()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: PEMType, Bytes: b}), nil
}

func addTagged(b *cryptobyte.Builder, n uint8, sequence asn1.RawContent) {
	if len(sequence) > 0 {
		b.AddASN1(tag(n), func(b *cryptobyte.Builder) { b.AddBytes(sequence) })
	}
}

// addSized adds a TPM2B in an OCTET STRING.
func addSized(b *cryptobyte.Builder, v []byte) {
	b.AddASN1OctetString(append(binary.BigEndian.AppendUint16(nil, uint16(len(v))), v...)) //nolint:gosec // a TPM's own
}
