package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"

	"github.com/google/go-tpm/tpm2"
)

// An ekKind is an endorsement key of the TCG EK Credential Profile, annex B.
type ekKind struct {
	name       string
	template   tpm2.TPMTPublic
	index      tpm2.TPMHandle // NV index of its certificate
	persistent tpm2.TPMHandle // where it usually lies, if it was made before
}

// ekKinds are looked for in this order. Most TPMs have the first two; the others
// came with the "high range" of the profile, and some have them alone.
func ekKinds() []ekKind {
	return []ekKind{
		{"ECC P-256 (L-2)", tpm2.ECCEKTemplate, 0x01c0000a, 0x81010002},
		{"RSA 2048 (L-1)", tpm2.RSAEKTemplate, 0x01c00002, 0x81010001},
		{"ECC P-384 (H-3)", highECC(tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, 256), 0x01c00016, 0x81010016},
		{"ECC P-256 (H-2)", highECC(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, 128), 0x01c00014, 0x81010014},
		{"RSA 2048 (H-1)", highRSA(2048, tpm2.TPMAlgSHA256, 128), 0x01c00012, 0x81010012},
		{"RSA 3072 (H-6)", highRSA(3072, tpm2.TPMAlgSHA384, 256), 0x01c0001c, 0x8101001c},
	}
}

// suits reports whether a key of this kind is like key in algorithm and size.
func (k ekKind) suits(key crypto.PublicKey) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		p, err := k.template.Parameters.RSADetail()
		return err == nil && int(p.KeyBits) == key.N.BitLen()
	case *ecdsa.PublicKey:
		p, err := k.template.Parameters.ECCDetail()
		if err != nil {
			return false
		}
		curve, err := p.CurveID.Curve()
		return err == nil && curve == key.Curve
	}
	return false
}

// policyB is what the profile binds high-range EKs to, for other uses than with
// their empty auth value.
func policyB(alg tpm2.TPMIAlgHash) tpm2.TPM2BDigest {
	text := "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"
	if alg == tpm2.TPMAlgSHA384 {
		text = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
	}
	digest, err := hex.DecodeString(text)
	if err != nil {
		panic(err) // a constant
	}
	return tpm2.TPM2BDigest{Buffer: digest}
}

func high(alg tpm2.TPMAlgID, hash tpm2.TPMIAlgHash) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: alg, NameAlg: hash,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
		},
		AuthPolicy: policyB(hash),
	}
}

func highECC(curve tpm2.TPMECCCurve, hash tpm2.TPMIAlgHash, aes tpm2.TPMKeyBits) tpm2.TPMTPublic {
	t := high(tpm2.TPMAlgECC, hash)
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aesCFB(aes), CurveID: curve})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}

func highRSA(bits tpm2.TPMKeyBits, hash tpm2.TPMIAlgHash, aes tpm2.TPMKeyBits) tpm2.TPMTPublic {
	t := high(tpm2.TPMAlgRSA, hash)
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aesCFB(aes), KeyBits: bits})
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return t
}

func aesCFB(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}
