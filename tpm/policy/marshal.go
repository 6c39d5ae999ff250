package policy

import (
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Marshal returns what [Parse] reads: the contents of a TSS2 key file's tags
// [1] and [3], each nil if it has to be left out.
func (p *Policy) Marshal() (policy, authPolicy []byte, err error) {
	if _, err := p.Digest(); err != nil {
		return nil, nil, err
	}
	if len(p.Steps) > 0 {
		var b cryptobyte.Builder
		addSteps(&b, p.Steps)
		if policy, err = b.Bytes(); err != nil {
			return nil, nil, malformed("%v", err)
		}
	}
	if len(p.Alternatives) > 0 {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, a := range p.Alternatives {
				addAlternative(b, a)
			}
		})
		if authPolicy, err = b.Bytes(); err != nil {
			return nil, nil, malformed("%v", err)
		}
	}
	return policy, authPolicy, nil
}

func addAlternative(b *cryptobyte.Builder, a Alternative) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if a.Name != "" {
			b.AddASN1(tag(0), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.Name)) })
			})
		}
		b.AddASN1(tag(1), func(b *cryptobyte.Builder) { addSteps(b, a.Steps) })
	})
}

func addSteps(b *cryptobyte.Builder, steps []Step) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, s := range steps {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag(0), func(b *cryptobyte.Builder) { b.AddASN1Uint64(uint64(s.Command())) })
				b.AddASN1(tag(1), func(b *cryptobyte.Builder) { b.AddASN1OctetString(s.body()) })
			})
		}
	})
}

func (s PCR) body() []byte { return append(tpm2.Marshal(s.Selection.TPM()), s.Digest...) }

func (AuthValue) body() []byte { return nil }

func (s Secret) body() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(s.Object))
	return appendSized(appendSized(b, s.Name), s.Ref)
}

func (s Authorize) body() []byte {
	b := appendSized(appendSized(nil, tpm2.Marshal(s.Public)), s.Ref)
	if s.Signature == nil {
		return binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMAlgNull))
	}
	return append(b, tpm2.Marshal(*s.Signature)...)
}

func (s Or) body() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s.Digests)))
	for _, d := range s.Digests {
		b = appendSized(b, d)
	}
	return b
}

func (s CommandCode) body() []byte { return code(s.Code) }

// appendSized appends a TPM2B.
func appendSized(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}
