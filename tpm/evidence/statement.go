package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// tpmGenerated begins every statement a TPM makes; a restricted key signs
// nothing else that does.
const tpmGenerated = 0xff544347

// checkStatement checks that ak, as a primary key of the endorsement hierarchy,
// signed a statement of the given kind, and returns it. Keys of other
// hierarchies are lied to about clock and firmware version (TPM 2.0 Library
// part 1, clause 36.7).
func checkStatement(ak tpm2.TPMTPublic, attest, signature []byte, kind tpm2.TPMST) (*tpm2.TPMSAttest, error) {
	if len(attest) < 6 {
		return nil, malformed("evidence: a statement of %d bytes", len(attest))
	}
	if magic := binary.BigEndian.Uint32(attest); magic != tpmGenerated {
		return nil, fmt.Errorf("%w: it begins with %#x", ErrNotGenerated, magic)
	}
	if got := tpm2.TPMST(binary.BigEndian.Uint16(attest[4:])); got != kind {
		return nil, fmt.Errorf("%w: of type %#x, not %#x", ErrStatement, uint16(got), uint16(kind))
	}
	if err := checkSignature(ak, attest, signature); err != nil {
		return nil, err
	}
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](attest)
	if err != nil || !bytes.Equal(tpm2.Marshal(*a), attest) {
		return nil, malformed("evidence: a statement")
	}
	qualified, err := qualifiedName(tpm2.TPMRHEndorsement, ak)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(a.QualifiedSigner.Buffer, qualified) {
		return nil, fmt.Errorf("%w: it is not of the endorsement hierarchy", ErrAKAttributes)
	}
	return a, nil
}

// qualifiedName is that of a primary key (part 1, clause 26.5).
func qualifiedName(hierarchy tpm2.TPMHandle, pub tpm2.TPMTPublic) ([]byte, error) {
	name, err := nameOf(pub, "attestation key")
	if err != nil {
		return nil, err
	}
	alg, err := pub.NameAlg.Hash()
	if err != nil {
		return nil, err
	}
	h := alg.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(hierarchy)))
	h.Write(name)
	return h.Sum(binary.BigEndian.AppendUint16(nil, uint16(pub.NameAlg))), nil
}

func checkSignature(ak tpm2.TPMTPublic, attest, signature []byte) error {
	key, err := publicKey(ak, "attestation key")
	if err != nil {
		return err
	}
	pub, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: it is no EC key", ErrAKAttributes)
	}
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return malformed("evidence: a signature")
	}
	s, err := sig.Signature.ECDSA()
	if err != nil || s.Hash != tpm2.TPMAlgSHA256 {
		return fmt.Errorf("%w: it is not of ECDSA with SHA-256", ErrSignature)
	}
	digest := sha256.Sum256(attest)
	if !ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)) {
		return ErrSignature
	}
	return nil
}

// checkQuoted checks that the bundle's PCR values are those of its quote.
func checkQuoted(q *Quote, attest *tpm2.TPMSAttest) (policy.Values, error) {
	info, err := attest.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("the quote: %w: %v", ErrStatement, err)
	}
	sel, err := policy.ParseSelection(q.Selection)
	if err != nil {
		return nil, malformed("evidence: the quote: %v", err)
	}
	quoted, err := policy.SelectionOf(info.PCRSelect)
	if err != nil {
		return nil, fmt.Errorf("the quote: %w: %w", ErrQuote, err)
	}
	if quoted.String() != sel.String() {
		return nil, fmt.Errorf("the quote: %w: it is of %s, the bundle says %s", ErrQuote, quoted, sel)
	}
	digest, err := q.PCRs.Values.Digest(tpm2.TPMAlgSHA256, sel)
	if err != nil {
		return nil, fmt.Errorf("the quote: %w: %w", ErrQuote, err)
	}
	if !bytes.Equal(digest, info.PCRDigest.Buffer) {
		return nil, fmt.Errorf("the quote: %w", ErrQuote)
	}
	// Only what was quoted is vouched for.
	values := policy.Values{}
	for _, b := range sel {
		values[b.Hash] = map[int][]byte{}
		for _, pcr := range b.PCRs {
			values[b.Hash][pcr] = q.PCRs.Values[b.Hash][pcr]
		}
	}
	return values, nil
}
