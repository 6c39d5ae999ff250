package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// Version is that of the formats this package writes and reads.
const Version = 1

// Limits on what is parsed, and on what a check is let cost: a bundle's author
// chooses the sizes of keys in it, and an RSA key of a megabyte takes an hour.
const (
	maxFile    = 1 << 20
	maxNonce   = 64
	maxChain   = 8
	maxRSABits = 8192
)

// A Bundle is what a device says of a key. The package's documentation has its
// JSON.
type Bundle struct {
	Version int         `json:"version"`
	Nonce   []byte      `json:"nonce,omitempty"`
	EK      Endorsement `json:"ek"`
	AK      Attestation `json:"ak"`
	Key     Certified   `json:"key"`
	Quote   *Quote      `json:"quote,omitempty"`
	TPM     Properties  `json:"tpm"`
}

// Endorsement is the endorsement key and what certifies it.
type Endorsement struct {
	Public      []byte   `json:"public"`                // TPMT_PUBLIC
	Certificate []byte   `json:"certificate,omitempty"` // DER
	Chain       [][]byte `json:"chain,omitempty"`       // DER, as the TPM holds them
}

// Attestation is the attestation key.
type Attestation struct {
	Public []byte `json:"public"` // TPMT_PUBLIC
}

// Certified is the signing key and the AK's statement on it.
type Certified struct {
	Public    []byte `json:"public"`    // TPMT_PUBLIC
	Attest    []byte `json:"attest"`    // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
}

// Quote is the AK's statement on PCRs, and their values.
type Quote struct {
	PCRs      policy.Snapshot `json:"pcrs"`
	Selection string          `json:"selection"`
	Attest    []byte          `json:"attest"`
	Signature []byte          `json:"signature"`
}

// Properties are what the TPM says of itself, unsigned.
type Properties struct {
	Manufacturer string `json:"manufacturer,omitempty"`
	Vendor       string `json:"vendor,omitempty"`
	Firmware     string `json:"firmware,omitempty"`
	Revision     string `json:"revision,omitempty"`
}

// ParseBundle reads a bundle. The error wraps [signer.ErrMalformed] or
// [ErrVersion]. What the bundle says is for [Verify] to check.
func ParseBundle(data []byte) (*Bundle, error) {
	var b Bundle
	if err := unmarshal(data, &b, "evidence"); err != nil {
		return nil, err
	}
	if err := b.checkLimits(); err != nil {
		return nil, err
	}
	return &b, nil
}

func (b *Bundle) checkLimits() error {
	switch {
	case len(b.Nonce) > maxNonce:
		return malformed("evidence: a nonce of %d bytes", len(b.Nonce))
	case len(b.EK.Chain) > maxChain:
		return malformed("evidence: a chain of %d certificates", len(b.EK.Chain))
	}
	return nil
}

// Marshal returns the bundle as indented JSON.
func (b *Bundle) Marshal() ([]byte, error) { return marshal(b) }

// Fingerprint is that of the bundle's EK (see [Fingerprint]), by which a CA can
// know a TPM that nobody certified.
func (b *Bundle) Fingerprint() ([]byte, error) {
	pub, err := parsePublic(b.EK.Public, "endorsement key")
	if err != nil {
		return nil, err
	}
	key, err := publicKey(pub, "endorsement key")
	if err != nil {
		return nil, err
	}
	return Fingerprint(key)
}

// Qualifying is what a bundle's statements are made over: SHA-256 of the text
// "holdfast evidence v1", a zero byte, the length of the nonce in four bytes,
// the nonce, and the request's DER.
func Qualifying(nonce, csr []byte) []byte {
	h := sha256.New()
	h.Write([]byte("holdfast evidence v1\x00"))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(nonce))))
	h.Write(nonce)
	h.Write(csr)
	return h.Sum(nil)
}

func marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// unmarshal refuses other versions before it looks at what they may have changed.
func unmarshal(data []byte, v any, what string) error {
	if len(data) > maxFile {
		return malformed("%s: larger than 1 MiB", what)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return malformed("%s: %v", what, err)
	}
	if err := checkVersion(head.Version); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return malformed("%s: %v", what, err)
	}
	return nil
}

func checkVersion(v int) error {
	if v != Version {
		return fmt.Errorf("%w: %d, where %d is known", ErrVersion, v, Version)
	}
	return nil
}

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w %s", signer.ErrMalformed, fmt.Sprintf(format, a...))
}
