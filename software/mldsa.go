package software

import (
	"bytes"
	"crypto"
	"crypto/sha3"
	"encoding/asn1"

	"github.com/cloudflare/circl/sign"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// mldsaSeed is the tag of a seed in ML-DSA's PrivateKey (RFC 9881, section 6):
// [0] IMPLICIT OCTET STRING.
var mldsaSeed = der.Tag(0).ContextSpecific()

// parseMLDSA reads the content of a PKCS#8 privateKey: a seed, an expanded key
// or both, which then must be one key. A seed or an expanded key without any
// tag, as drafts before the RFC had it, is told by its length.
func parseMLDSA(scheme sign.Scheme, content []byte) (crypto.Signer, error) {
	var seed, expanded []byte
	s := cryptobyte.String(content)
	ok := true
	switch {
	case len(content) == scheme.SeedSize():
		seed, s = content, nil
	case len(content) == scheme.PrivateKeySize():
		expanded, s = content, nil
	case s.PeekASN1Tag(mldsaSeed):
		ok = s.ReadASN1((*cryptobyte.String)(&seed), mldsaSeed)
	case s.PeekASN1Tag(der.OCTET_STRING):
		ok = s.ReadASN1((*cryptobyte.String)(&expanded), der.OCTET_STRING)
	default:
		var both cryptobyte.String
		ok = s.ReadASN1(&both, der.SEQUENCE) &&
			both.ReadASN1((*cryptobyte.String)(&seed), der.OCTET_STRING) &&
			both.ReadASN1((*cryptobyte.String)(&expanded), der.OCTET_STRING) && both.Empty()
	}
	if !ok || !s.Empty() {
		return nil, malformed("%s key: neither a seed nor an expanded key nor both", scheme.Name())
	}
	if seed != nil && len(seed) != scheme.SeedSize() {
		return nil, malformed("%s key: a seed of %d bytes, where it has %d", scheme.Name(), len(seed), scheme.SeedSize())
	}
	if expanded != nil && len(expanded) != scheme.PrivateKeySize() {
		return nil, malformed("%s key: an expanded key of %d bytes, where it has %d", scheme.Name(), len(expanded), scheme.PrivateKeySize())
	}
	if seed == nil {
		return expandedMLDSA(scheme, expanded)
	}
	_, key := scheme.DeriveKey(seed)
	if expanded != nil {
		own, err := key.MarshalBinary()
		if err != nil || !bytes.Equal(own, expanded) {
			return nil, malformed("%s key: its seed and its expanded key are not the same key", scheme.Name())
		}
	}
	return mldsaSigner(scheme, key)
}

// expandedMLDSA takes an expanded key (FIPS 204, algorithm 25) whose parts must
// fit each other.
func expandedMLDSA(scheme sign.Scheme, expanded []byte) (crypto.Signer, error) {
	private, err := scheme.UnmarshalBinaryPrivateKey(expanded)
	if err != nil {
		return nil, malformed("%s key: its expanded key", scheme.Name())
	}
	key, err := mldsaSigner(scheme, private)
	if err != nil {
		return nil, err
	}
	pub, ok := key.Public().(sign.PublicKey)
	if !ok {
		return nil, unsupported("%s", scheme.Name())
	}
	public, err := pub.MarshalBinary()
	if err != nil {
		return nil, err
	}
	inRange, fits := checkExpanded(scheme, expanded, public)
	switch {
	case !inRange:
		return nil, malformed("%s key: its secret vectors are out of range", scheme.Name())
	case !bytes.Equal(sha3.SumSHAKE256(public, 64), expanded[64:128]):
		return nil, malformed("%s key: its expanded key does not fit the hash of its public key", scheme.Name())
	case !fits:
		return nil, malformed("%s key: the parts of its expanded key do not fit each other", scheme.Name())
	}
	return key, nil
}

func mldsaSigner(scheme sign.Scheme, key sign.PrivateKey) (crypto.Signer, error) {
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, unsupported("%s", scheme.Name())
	}
	return s, nil
}

// marshalMLDSA returns a PKCS#8 key with its seed or, for a key that was read
// without one, in expanded form.
func marshalMLDSA(key sign.PrivateKey) ([]byte, error) {
	withOID, ok := key.Scheme().(interface{ Oid() asn1.ObjectIdentifier })
	if !ok {
		return nil, unsupported("%s", key.Scheme().Name())
	}
	var seed []byte
	if k, ok := key.(interface{ Seed() []byte }); ok {
		seed = k.Seed()
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(withOID.Oid()) })
		b.AddASN1(der.OCTET_STRING, func(b *cryptobyte.Builder) {
			if seed != nil {
				b.AddASN1(mldsaSeed, func(b *cryptobyte.Builder) { b.AddBytes(seed) })
				return
			}
			expanded, err := key.MarshalBinary()
			if err != nil {
				b.SetError(err)
				return
			}
			b.AddASN1OctetString(expanded)
		})
	})
	return b.Bytes()
}
