package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// NV indexes of the certificates above the EK's.
const (
	firstChainIndex = 0x01c00100
	lastChainIndex  = 0x01c001ff
)

// akTemplate makes the AK: always the same key of a TPM, of no use to other
// software that makes keys in the endorsement hierarchy.
func akTemplate() tpm2.TPMTPublic {
	label := sha256.Sum256([]byte("holdfast attestation key v1"))
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: label[:]}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}}),
	}
}

// fits reports whether pub was made by template: is the same in all but the
// key itself.
func fits(pub, template tpm2.TPMTPublic) bool {
	pub.Unique = template.Unique
	return pub.Type == template.Type && bytes.Equal(tpm2.Marshal(pub), tpm2.Marshal(template))
}

// parsePublic reads a TPMT_PUBLIC that marshals to the same bytes again.
func parsePublic(b []byte, what string) (tpm2.TPMTPublic, error) {
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil || !bytes.Equal(tpm2.Marshal(*pub), b) {
		return tpm2.TPMTPublic{}, malformed("evidence: the %s's public area", what)
	}
	return *pub, nil
}

// publicKey returns the key of a public area, if it is one at all.
func publicKey(pub tpm2.TPMTPublic, what string) (crypto.PublicKey, error) {
	key, err := tpm2.Pub(pub)
	if err != nil {
		return nil, fmt.Errorf("the %s: %w: %v", what, signer.ErrUnsupportedKey, err)
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if _, err := k.ECDH(); err != nil {
			return nil, malformed("evidence: the %s is no point of its curve", what)
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 || k.N.BitLen() > maxRSABits || k.E < 3 {
			return nil, fmt.Errorf("the %s: %w: %s", what, signer.ErrUnsupportedKey, signer.DescribeKey(k))
		}
	}
	return key, nil
}

// nameOf returns a key's Name, refusing hashes in which another key may have
// the same.
func nameOf(pub tpm2.TPMTPublic, what string) ([]byte, error) {
	switch pub.NameAlg {
	case tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512:
	default:
		return nil, fmt.Errorf("the %s: %w: its name algorithm is %#x", what, signer.ErrUnsupportedKey, uint16(pub.NameAlg))
	}
	name, err := tpm2.ObjectName(&pub)
	if err != nil {
		return nil, fmt.Errorf("the %s: %w: %v", what, signer.ErrUnsupportedKey, err)
	}
	return name.Buffer, nil
}
