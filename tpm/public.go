package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

const minRSA, maxRSA = 2048, 4096

// parsePublic reads a TPMT_PUBLIC, and insists on reading it as the TPM does:
// what is read writes the same bytes.
func parsePublic(area []byte) (*tpm2.TPMTPublic, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](area)
	if err != nil || !bytes.Equal(tpm2.Marshal(*p), area) {
		return nil, malformed("its public area")
	}
	return p, nil
}

// publicKey converts a public area.
func publicKey(p *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	switch p.Type {
	case tpm2.TPMAlgECC:
		return ecPublicKey(p)
	case tpm2.TPMAlgRSA:
		pub, err := tpm2.Pub(*p)
		if err != nil {
			return nil, malformed("its RSA key: %v", err)
		}
		key := pub.(*rsa.PublicKey)
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, unsupported("RSA-%d: 2048 to 4096 bits are taken", bits)
		}
		if key.E < 3 || key.E&1 == 0 || key.N.Bit(0) == 0 {
			return nil, malformed("its RSA key")
		}
		return key, nil
	case tpm2.TPMAlgKeyedHash:
		return nil, unsupported("an HMAC key or sealed data, which makes no signatures")
	case tpm2.TPMAlgSymCipher:
		return nil, unsupported("a symmetric key, which makes no signatures")
	}
	return nil, unsupported("type %#x", uint16(p.Type))
}

func ecPublicKey(p *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	parms, err := p.Parameters.ECCDetail()
	if err != nil {
		return nil, malformed("its EC parameters")
	}
	point, err := p.Unique.ECC()
	if err != nil {
		return nil, malformed("its EC point")
	}
	curve := curveOf(parms.CurveID)
	if curve == nil {
		return nil, signer.WithHint(unsupported("EC on %s", curveName(parms.CurveID)), "use an EC key on P-256, P-384 or P-521")
	}
	size := (curve.Params().BitSize + 7) / 8
	x, y := bytes.TrimLeft(point.X.Buffer, "\x00"), bytes.TrimLeft(point.Y.Buffer, "\x00")
	if len(x) > size || len(y) > size {
		return nil, malformed("its EC point")
	}
	raw := make([]byte, 1+2*size)
	raw[0] = 4
	copy(raw[1+size-len(x):], x)
	copy(raw[1+2*size-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, raw)
	if err != nil {
		return nil, malformed("its EC point is not on %s", curve.Params().Name)
	}
	return key, nil
}

func curveOf(id tpm2.TPMECCCurve) elliptic.Curve {
	switch id {
	case tpm2.TPMECCNistP256:
		return elliptic.P256()
	case tpm2.TPMECCNistP384:
		return elliptic.P384()
	case tpm2.TPMECCNistP521:
		return elliptic.P521()
	}
	return nil
}

func curveName(id tpm2.TPMECCCurve) string {
	switch id {
	case tpm2.TPMECCNistP192:
		return "P-192"
	case tpm2.TPMECCNistP224:
		return "P-224"
	case tpm2.TPMECCBNP256:
		return "BN P-256"
	case tpm2.TPMECCBNP638:
		return "BN P-638"
	case tpm2.TPMECCSM2P256:
		return "SM2 P-256"
	}
	return fmt.Sprintf("curve %#x", uint16(id))
}

// checkUsable says why a key cannot sign what its user wants signed.
func checkUsable(p *tpm2.TPMTPublic) error {
	a := p.ObjectAttributes
	switch {
	case a.Restricted && a.Decrypt:
		return unsupported("a storage key, which protects other keys and signs nothing")
	case a.Restricted:
		return signer.WithHint(unsupported("a restricted key, which signs only what the TPM itself has made"),
			"an attestation key vouches for others; make a key without `restricted` for signing requests")
	case !a.SignEncrypt:
		return unsupported("a key without the attribute `sign`")
	}
	_, err := fixedScheme(p)
	return err
}

// A scheme is a signature algorithm and its hash; zero fields are not fixed.
type scheme struct {
	alg  tpm2.TPMAlgID
	hash tpm2.TPMIAlgHash
}

// fixedScheme returns the scheme that a key is bound to, if any.
func fixedScheme(p *tpm2.TPMTPublic) (s scheme, err error) {
	var details tpm2.TPMUAsymScheme
	switch p.Type {
	case tpm2.TPMAlgECC:
		parms, err := p.Parameters.ECCDetail()
		if err != nil {
			return s, malformed("its EC parameters")
		}
		s.alg, details = parms.Scheme.Scheme, parms.Scheme.Details
	case tpm2.TPMAlgRSA:
		parms, err := p.Parameters.RSADetail()
		if err != nil {
			return s, malformed("its RSA parameters")
		}
		s.alg, details = parms.Scheme.Scheme, parms.Scheme.Details
	}
	bad := false
	switch s.alg {
	case 0, tpm2.TPMAlgNull:
		return scheme{}, nil
	case tpm2.TPMAlgECDSA:
		d, err := details.ECDSA()
		if bad = err != nil; !bad {
			s.hash = d.HashAlg
		}
	case tpm2.TPMAlgRSASSA:
		d, err := details.RSASSA()
		if bad = err != nil; !bad {
			s.hash = d.HashAlg
		}
	case tpm2.TPMAlgRSAPSS:
		d, err := details.RSAPSS()
		if bad = err != nil; !bad {
			s.hash = d.HashAlg
		}
	default:
		return s, unsupported("a key made for the scheme %s alone", schemeName(s.alg))
	}
	if bad {
		return s, malformed("its scheme")
	}
	return s, nil
}

func schemeName(alg tpm2.TPMAlgID) string {
	switch alg {
	case tpm2.TPMAlgECDSA:
		return "ECDSA"
	case tpm2.TPMAlgRSASSA:
		return "RSASSA (PKCS#1 v1.5)"
	case tpm2.TPMAlgRSAPSS:
		return "RSAPSS"
	case tpm2.TPMAlgECDAA:
		return "ECDAA"
	case tpm2.TPMAlgSM2:
		return "SM2"
	case tpm2.TPMAlgECSchnorr:
		return "EC-Schnorr"
	case tpm2.TPMAlgRSAES, tpm2.TPMAlgOAEP, tpm2.TPMAlgECDH:
		return "of encryption"
	}
	return fmt.Sprintf("%#x", uint16(alg))
}

func hashName(alg tpm2.TPMIAlgHash) string {
	if h, err := alg.Hash(); err == nil {
		return h.String()
	}
	return fmt.Sprintf("hash %#x", uint16(alg))
}
