package policy

import (
	"crypto"
	_ "crypto/sha1"   // a PCR bank, and the name algorithm of old keys
	_ "crypto/sha256" // the hashes a TPM may use
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A calculator keeps a policy digest as the TPM does (TPM 2.0 part 1, 19.7).
// go-tpm's own does not restart at PolicyAuthorize.
type calculator struct {
	hash  crypto.Hash
	state []byte
}

func newCalculator(alg tpm2.TPMIAlgHash) (*calculator, error) {
	h, err := alg.Hash()
	if err != nil {
		return nil, fmt.Errorf("policy: %w: hash algorithm %#x", ErrUnsupported, uint16(alg))
	}
	return &calculator{h, make([]byte, h.Size())}, nil
}

func (c *calculator) run(steps []Step) ([]byte, error) {
	for i, s := range steps {
		if err := s.extend(c); err != nil {
			return nil, fmt.Errorf("policy step %d (%v): %w", i+1, s, err)
		}
	}
	return c.state, nil
}

func (c *calculator) update(parts ...[]byte) {
	h := c.hash.New()
	h.Write(c.state)
	for _, p := range parts {
		h.Write(p)
	}
	c.state = h.Sum(nil)
}

// update2 is PolicyUpdate of TPM 2.0 part 3, 23.2.3.
func (c *calculator) update2(cc tpm2.TPMCC, name, ref []byte) {
	c.update(code(cc), name)
	c.update(ref)
}

func (c *calculator) reset() { c.state = make([]byte, c.hash.Size()) }

func code(cc tpm2.TPMCC) []byte { return binary.BigEndian.AppendUint32(nil, uint32(cc)) }

func (s PCR) extend(c *calculator) error {
	if len(s.Digest) != c.hash.Size() {
		return malformed("a PCR digest of %d bytes, where the policy's hash has %d", len(s.Digest), c.hash.Size())
	}
	c.update(code(tpm2.TPMCCPolicyPCR), tpm2.Marshal(s.Selection.TPM()), s.Digest)
	return nil
}

func (AuthValue) extend(c *calculator) error {
	c.update(code(tpm2.TPMCCPolicyAuthValue))
	return nil
}

func (s Secret) extend(c *calculator) error {
	c.update2(tpm2.TPMCCPolicySecret, s.Name, s.Ref)
	return nil
}

func (s Authorize) extend(c *calculator) error {
	name, err := s.Name()
	if err != nil {
		return err
	}
	c.reset()
	c.update2(tpm2.TPMCCPolicyAuthorize, name, s.Ref)
	return nil
}

func (s Or) extend(c *calculator) error {
	if len(s.Digests) < 2 || len(s.Digests) > MaxBranches {
		return malformed("an Or of %d policies", len(s.Digests))
	}
	c.reset()
	parts := [][]byte{code(tpm2.TPMCCPolicyOR)}
	for _, d := range s.Digests {
		if len(d) != c.hash.Size() {
			return malformed("a branch's digest of %d bytes, where the policy's hash has %d", len(d), c.hash.Size())
		}
		parts = append(parts, d)
	}
	c.update(parts...)
	return nil
}

func (s CommandCode) extend(c *calculator) error {
	c.update(code(tpm2.TPMCCPolicyCommandCode), code(s.Code))
	return nil
}
