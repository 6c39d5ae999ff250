package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// AuthorizeBy returns the step that takes any policy the holder of pub signed:
// an RSA key, as systemd has it, or an EC one. The Name given to the key is
// systemd's, so that both come to the same policy digest for it.
func AuthorizeBy(pub crypto.PublicKey) (Authorize, error) {
	t := tpm2.TPMTPublic{
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{Decrypt: true, SignEncrypt: true, UserWithAuth: true},
	}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(k.N.BitLen()), Exponent: uint32(k.E)})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.N.FillBytes(make([]byte, (k.N.BitLen()+7)/8))})
	case *ecdsa.PublicKey:
		curve, ok := map[elliptic.Curve]tpm2.TPMECCCurve{elliptic.P256(): tpm2.TPMECCNistP256, elliptic.P384(): tpm2.TPMECCNistP384}[k.Curve]
		if !ok {
			return Authorize{}, fmt.Errorf("policy: %w: %s cannot approve policies", signer.ErrUnsupportedKey, signer.DescribeKey(pub))
		}
		point, err := k.Bytes() // 4 ‖ X ‖ Y
		if err != nil {
			return Authorize{}, fmt.Errorf("policy: %w: %v", signer.ErrUnsupportedKey, err)
		}
		x, y := point[1:1+len(point)/2], point[1+len(point)/2:]
		t.Type = tpm2.TPMAlgECC
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})
	default:
		return Authorize{}, fmt.Errorf("policy: %w: %s cannot approve policies, an RSA or EC key can", signer.ErrUnsupportedKey, signer.DescribeKey(pub))
	}
	return Authorize{Public: t}, nil
}

// Fingerprint is the "pkfp" of a signed PCR policy: the SHA-256 of the public
// key's own encoding (i2d_PublicKey), PKCS#1 for RSA, the uncompressed point
// for EC.
func Fingerprint(pub crypto.PublicKey) ([]byte, error) {
	var b []byte
	switch k := pub.(type) {
	case *rsa.PublicKey:
		b = x509.MarshalPKCS1PublicKey(k)
	case *ecdsa.PublicKey:
		var err error
		if b, err = k.Bytes(); err != nil {
			return nil, fmt.Errorf("policy: %w: %v", signer.ErrUnsupportedKey, err)
		}
	default:
		return nil, fmt.Errorf("policy: %w: %s cannot approve policies", signer.ErrUnsupportedKey, signer.DescribeKey(pub))
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// SignPCRs approves PCR values for the keys that are bound, by a policy of the
// given hash (a key's name algorithm; systemd's is always SHA-256), to key's
// public half. sel must be of one bank.
func SignPCRs(random io.Reader, key crypto.Signer, hash tpm2.TPMIAlgHash, sel Selection, v Values) (SignedEntry, error) {
	if len(sel) != 1 {
		return SignedEntry{}, fmt.Errorf("policy: %w: signing PCRs of several banks at once, %s", ErrUnsupported, sel)
	}
	fp, err := Fingerprint(key.Public())
	if err != nil {
		return SignedEntry{}, err
	}
	step, err := NewPCR(hash, sel, v)
	if err != nil {
		return SignedEntry{}, err
	}
	digest, err := (&Policy{Hash: hash, Steps: []Step{step}}).Digest()
	if err != nil {
		return SignedEntry{}, err
	}
	sum := sha256.Sum256(digest)
	sig, err := key.Sign(random, sum[:], crypto.SHA256)
	if err != nil {
		return SignedEntry{}, fmt.Errorf("signing a policy for PCRs %s: %w", sel, err)
	}
	return SignedEntry{Selection: sel, KeyFingerprint: fp, Policy: digest, Signature: sig}, nil
}

// Approve returns steps as an alternative of a policy that begins with the
// Authorize step by: signed with key and ready for the key file. It can
// approve any steps, not PCRs alone.
func Approve(random io.Reader, key crypto.Signer, hash tpm2.TPMIAlgHash, by Authorize, name string, steps []Step) (Alternative, error) {
	digest, err := (&Policy{Hash: hash, Steps: steps}).Digest()
	if err != nil {
		return Alternative{}, err
	}
	if by.Public.NameAlg != tpm2.TPMAlgSHA256 {
		return Alternative{}, fmt.Errorf("policy: %w: an approver's key whose name algorithm is %#x, not SHA-256", ErrUnsupported, uint16(by.Public.NameAlg))
	}
	sum := sha256.Sum256(append(digest[:len(digest):len(digest)], by.Ref...))
	raw, err := key.Sign(random, sum[:], crypto.SHA256)
	if err != nil {
		return Alternative{}, fmt.Errorf("signing a policy: %w", err)
	}
	if by.Signature, err = tpmSignature(by.Public, raw); err != nil {
		return Alternative{}, err
	}
	return Alternative{Name: name, Steps: append(append([]Step(nil), steps...), by)}, nil
}

// tpmSignature turns pub's signature, as a crypto.Signer makes it, into the
// TPM's form.
func tpmSignature(pub tpm2.TPMTPublic, sig []byte) (*tpm2.TPMTSignature, error) {
	if pub.Type == tpm2.TPMAlgRSA {
		return &tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA,
			&tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: sig}})}, nil
	}
	var seq cryptobyte.String
	in, r, s := cryptobyte.String(sig), new(big.Int), new(big.Int)
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1Integer(r) || !seq.ReadASN1Integer(s) || !seq.Empty() ||
		r.Sign() <= 0 || s.Sign() <= 0 {
		return nil, malformed("an ECDSA signature")
	}
	point, err := pub.Unique.ECC()
	if err != nil {
		return nil, malformed("the approver's key: %v", err)
	}
	size := len(point.X.Buffer)
	if r.BitLen() > 8*size || s.BitLen() > 8*size {
		return nil, malformed("an ECDSA signature of another curve")
	}
	return &tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, size))}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, size))},
	})}, nil
}
