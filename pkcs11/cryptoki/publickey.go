//go:build cgo

package cryptoki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"fmt"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/signer"
)

// publicKey reads a public key from the attributes of a private or public key
// object. It is nil, and algorithm says what there is, if the object does not
// show it or this package does not know its kind.
func (l *library) publicKey(s *session, o object) (pub crypto.PublicKey, algorithm string, err error) {
	kind, ok, err := l.number(s, o, p11.CKA_KEY_TYPE)
	if err != nil || !ok {
		return nil, "unknown", err
	}
	switch kind {
	case p11.CKK_RSA:
		err := l.read(s, o, p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT)
		n, e := o.known[p11.CKA_MODULUS], o.known[p11.CKA_PUBLIC_EXPONENT]
		if err != nil || len(n) == 0 {
			return nil, "RSA", err
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
		if exp := new(big.Int).SetBytes(e); exp.Sign() > 0 {
			if !exp.IsInt64() || exp.Int64() > 1<<31-1 {
				return nil, fmt.Sprintf("RSA-%d with the exponent %v", key.N.BitLen(), exp), nil
			}
			key.E = int(exp.Int64())
		}
		return key, signer.DescribeKey(key), nil
	case p11.CKK_EC:
		if err := l.read(s, o, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT); err != nil {
			return nil, "EC", err
		}
		curve, name := curveOf(o.known[p11.CKA_EC_PARAMS])
		point := o.known[p11.CKA_EC_POINT]
		if curve == nil || point == nil {
			return nil, "EC " + name, nil
		}
		if key := parsePoint(curve, point); key != nil {
			return key, signer.DescribeKey(key), nil
		}
		return nil, "EC " + name, nil
	case p11.CKK_DSA:
		return nil, "DSA", nil
	case 0x40: // CKK_EC_EDWARDS
		return nil, "Ed25519 or Ed448", nil
	}
	return nil, fmt.Sprintf("key type 0x%X", kind), nil
}

var curves = []struct {
	curve elliptic.Curve
	oid   asn1.ObjectIdentifier
	names []string
}{
	{elliptic.P256(), asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, []string{"secp256r1", "prime256v1", "P-256"}},
	{elliptic.P384(), asn1.ObjectIdentifier{1, 3, 132, 0, 34}, []string{"secp384r1", "P-384"}},
	{elliptic.P521(), asn1.ObjectIdentifier{1, 3, 132, 0, 35}, []string{"secp521r1", "P-521"}},
}

// curveOf reads CKA_EC_PARAMS: an object identifier, or a name.
func curveOf(params []byte) (elliptic.Curve, string) {
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(params, &oid); err == nil {
		for _, c := range curves {
			if c.oid.Equal(oid) {
				return c.curve, c.curve.Params().Name
			}
		}
		return nil, oid.String()
	}
	var name string
	if _, err := asn1.Unmarshal(params, &name); err == nil {
		for _, c := range curves {
			for _, n := range c.names {
				if n == name {
					return c.curve, c.curve.Params().Name
				}
			}
		}
		return nil, name
	}
	return nil, "with parameters of its own"
}

// parsePoint reads CKA_EC_POINT: the standard's OCTET STRING around the point,
// or what modules give instead: the point itself, a BIT STRING, x‖y alone;
// each uncompressed or compressed. It returns nil if it is none of them.
func parsePoint(curve elliptic.Curve, b []byte) *ecdsa.PublicKey {
	size := (curve.Params().BitSize + 7) / 8
	switch {
	case len(b) == 2*size:
		b = append([]byte{4}, b...)
	case len(b) == 1+2*size, len(b) == 1+size:
	default:
		var octets []byte
		var bits asn1.BitString
		if rest, err := asn1.Unmarshal(b, &octets); err == nil && len(rest) == 0 {
			b = octets
		} else if rest, err := asn1.Unmarshal(b, &bits); err == nil && len(rest) == 0 {
			b = bits.Bytes
		}
	}
	if len(b) == 1+size && (b[0] == 2 || b[0] == 3) {
		x, y := elliptic.UnmarshalCompressed(curve, b)
		if x == nil {
			return nil
		}
		b = append([]byte{4}, make([]byte, 2*size)...)
		x.FillBytes(b[1 : 1+size])
		y.FillBytes(b[1+size:])
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, b)
	if err != nil {
		return nil
	}
	return key
}

// publicKeyBeside reads the public key of a private key whose own attributes
// do not show it: from the public key objects of its kind with its id and
// label, with its id, or, when it has none, with its label. It is nil if these
// are several keys.
func (l *library) publicKeyBeside(s *session, o object) (crypto.PublicKey, error) {
	var stages [][]*p11.Attribute
	switch {
	case len(o.id) > 0 && o.label != "":
		stages = [][]*p11.Attribute{{idIs(o.id), labelIs(o.label)}, {idIs(o.id)}}
	case len(o.id) > 0:
		stages = [][]*p11.Attribute{{idIs(o.id)}}
	case o.label != "":
		stages = [][]*p11.Attribute{{labelIs(o.label)}}
	}
	if err := l.read(s, o, p11.CKA_KEY_TYPE); err != nil {
		return nil, err
	}
	kind := o.known[p11.CKA_KEY_TYPE]
	for _, attrs := range stages {
		if kind != nil {
			attrs = append(attrs, p11.NewAttribute(p11.CKA_KEY_TYPE, kind))
		}
		others, err := l.find(s, append(attrs, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY))...)
		if err != nil {
			return nil, err
		}
		var found []crypto.PublicKey
		for _, h := range others {
			pub, _, err := l.publicKey(s, newObject(h))
			if err != nil {
				return nil, err
			}
			if pub != nil && (len(found) == 0 || !same(found[0], pub)) {
				found = append(found, pub)
			}
		}
		if len(found) > 0 {
			if len(found) > 1 {
				return nil, nil
			}
			return found[0], nil
		}
	}
	return nil, nil
}

func same(a, b crypto.PublicKey) bool {
	if e, ok := a.(interface{ Equal(crypto.PublicKey) bool }); ok && e.Equal(b) {
		return true
	}
	x, errX := signer.MarshalPublicKey(a)
	y, errY := signer.MarshalPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
