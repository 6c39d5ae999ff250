package tpm

import (
	"bytes"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// tagAuthPolicy is the number of the key file's field for signed policies.
const tagAuthPolicy = 3

// ReplaceAuthPolicy returns the text of a key file, PEM or DER, with another
// authPolicy: [KeyFile.AuthPolicy], nil for none. Nothing else in it changes: not
// what else the PEM file holds, nor fields of the key that are unknown.
func ReplaceAuthPolicy(text, authPolicy []byte) ([]byte, error) {
	block, start, end := findPEM(text)
	if block == nil {
		return replaceField(text, authPolicy)
	}
	changed, err := replaceField(block.Bytes, authPolicy)
	if err != nil {
		return nil, err
	}
	block.Bytes = changed
	out := append([]byte(nil), text[:start]...)
	out = append(out, pem.EncodeToMemory(block)...)
	return append(out, text[end:]...), nil
}

// findPEM returns the first key file in text and where it lies.
func findPEM(text []byte) (block *pem.Block, start, end int) {
	begin := []byte("-----BEGIN " + PEMType + "-----")
	start = bytes.Index(text, begin)
	if start < 0 {
		return nil, 0, 0
	}
	block, rest := pem.Decode(text[start:])
	if block == nil || block.Type != PEMType {
		return nil, 0, 0
	}
	return block, start, len(text) - len(rest)
}

func replaceField(key, authPolicy []byte) ([]byte, error) {
	if _, err := ParseKeyFile(key); err != nil {
		return nil, err
	}
	var in, oid cryptobyte.String
	outer := cryptobyte.String(key)
	if !outer.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1Element(&oid, der.OBJECT_IDENTIFIER) {
		return nil, fmt.Errorf("TPM key: %w", signer.ErrMalformed) // but it was parsed
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(oid)
		var field cryptobyte.String
		var t der.Tag
		for in.ReadAnyASN1Element(&field, &t) && t&0xe0 == 0xa0 && t&0x1f < tagAuthPolicy {
			b.AddBytes(field)
			field = nil
		}
		addTagged(b, tagAuthPolicy, authPolicy)
		if t != tag(tagAuthPolicy) {
			b.AddBytes(field)
		}
		b.AddBytes(in)
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("TPM key: %w", err)
	}
	_, err = ParseKeyFile(out)
	return out, err
}
