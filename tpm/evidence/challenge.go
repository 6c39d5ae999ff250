package evidence

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Challenge is a message to one TPM: what TPM2_MakeCredential gives, and
// perhaps something sealed with it. It is no secret.
type Challenge struct {
	Version int `json:"version"`

	// Binding names the keys it is for.
	Binding

	Credential []byte `json:"credential"` // TPMS_ID_OBJECT
	Secret     []byte `json:"secret"`     // what TPM2B_ENCRYPTED_SECRET holds
	Sealed     []byte `json:"sealed,omitempty"`
}

// An Answer is a device's to a [Challenge].
type Answer struct {
	Version int    `json:"version"`
	Answer  []byte `json:"answer"`
}

// Pending is what the CA keeps of a challenge until it is answered. It is no
// secret, but must not be changed meanwhile.
type Pending struct {
	Version int `json:"version"`

	// Binding is what a right answer proves, and by the AK's statement, that
	// the key of the Name Key is in the same TPM.
	Binding
	Key []byte `json:"key"`

	// Hash is the SHA-256 of the answer.
	Hash []byte `json:"hash"`
}

// A Binding says that an endorsement key and an attestation key, by their
// Names, are of one TPM.
type Binding struct {
	EK []byte `json:"ek"`
	AK []byte `json:"ak"`
}

// Labels of the keys derived from a challenge's secret.
const (
	answerLabel = "holdfast evidence answer v1"
	sealLabel   = "holdfast evidence seal v1"
)

// secretSize fits EKs whose name algorithm is SHA-256, which none is below.
const secretSize = 32

// maxSealed leaves a challenge within maxFile, in base64 and with the rest.
const maxSealed = maxFile / 2

// What TPM2_MakeCredential gives is far smaller.
const maxCredential = 1024

// NewChallenge makes a question that only the TPM of a verified bundle can
// answer.
func NewChallenge(r *Result) (*Challenge, *Pending, error) {
	c, secret, err := makeCredential(r)
	if err != nil {
		return nil, nil, err
	}
	answer, err := derive(secret, answerLabel)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(answer)
	return c, &Pending{Version: Version, Binding: r.Binding, Key: r.KeyName, Hash: sum[:]}, nil
}

// Verify checks an answer. The error wraps [ErrAnswer].
func (p *Pending) Verify(a *Answer) error {
	if err := checkVersion(p.Version); err != nil {
		return err
	}
	if err := checkVersion(a.Version); err != nil {
		return err
	}
	sum := sha256.Sum256(a.Answer)
	if subtle.ConstantTimeCompare(sum[:], p.Hash) != 1 {
		return fmt.Errorf("TPM evidence: %w", ErrAnswer)
	}
	return nil
}

// Seal encrypts data, usually a certificate and its chain, for the TPM of a
// verified bundle, at most 512 KiB. [Open] undoes it there.
func Seal(r *Result, data []byte) (*Challenge, error) {
	if len(data) > maxSealed {
		return nil, fmt.Errorf("TPM evidence: %d bytes to seal, where %d are the most", len(data), maxSealed)
	}
	c, secret, err := makeCredential(r)
	if err != nil {
		return nil, err
	}
	aead, err := sealer(secret)
	if err != nil {
		return nil, err
	}
	c.Sealed = aead.Seal(nil, make([]byte, aead.NonceSize()), data, c.bound())
	return c, nil
}

// bound is the data that sealing authenticates.
func (c *Challenge) bound() []byte {
	return append(append([]byte(nil), c.EK...), c.AK...)
}

// sealer's key is used once, so the nonce is zero.
func sealer(secret []byte) (cipher.AEAD, error) {
	key, err := derive(secret, sealLabel)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func derive(secret []byte, label string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, label, 32)
}

// makeCredential is TPM2_MakeCredential without a TPM.
func makeCredential(r *Result) (*Challenge, []byte, error) {
	if len(r.Binding.EK) == 0 || len(r.Binding.AK) == 0 {
		return nil, nil, fmt.Errorf("TPM evidence: a challenge from a bundle that was not verified")
	}
	ek, err := tpm2.ImportEncapsulationKey(&r.ek)
	if err != nil {
		return nil, nil, fmt.Errorf("TPM evidence: the endorsement key: %w", err)
	}
	secret := make([]byte, secretSize)
	if _, err := rand.Read(secret); err != nil {
		return nil, nil, err
	}
	id, encrypted, err := tpm2.CreateCredential(rand.Reader, ek, r.Binding.AK, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("TPM evidence: the endorsement key: %w", err)
	}
	return &Challenge{Version: Version, Binding: r.Binding, Credential: id, Secret: encrypted}, secret, nil
}

// ParseChallenge reads a challenge's JSON. The error wraps
// [signer.ErrMalformed] or [ErrVersion].
func ParseChallenge(data []byte) (*Challenge, error) {
	var c Challenge
	if err := unmarshal(data, &c, "challenge"); err != nil {
		return nil, err
	}
	if len(c.EK) == 0 || len(c.AK) == 0 || len(c.Credential) == 0 || len(c.Secret) == 0 {
		return nil, malformed("challenge: it asks nothing of any TPM")
	}
	return &c, nil
}

// ParseAnswer reads an answer's JSON, as [ParseChallenge] does a challenge's.
func ParseAnswer(data []byte) (*Answer, error) {
	var a Answer
	if err := unmarshal(data, &a, "answer"); err != nil {
		return nil, err
	}
	if len(a.Answer) == 0 {
		return nil, malformed("answer: there is none in it")
	}
	return &a, nil
}

// ParsePending reads a pending challenge's JSON, as [ParseChallenge] does a
// challenge's.
func ParsePending(data []byte) (*Pending, error) {
	var p Pending
	if err := unmarshal(data, &p, "pending challenge"); err != nil {
		return nil, err
	}
	if len(p.EK) == 0 || len(p.AK) == 0 || len(p.Hash) == 0 {
		return nil, malformed("pending challenge: it knows no right answer")
	}
	return &p, nil
}

// Marshal returns the challenge as indented JSON.
func (c *Challenge) Marshal() ([]byte, error) { return marshal(c) }

// Marshal returns the answer as indented JSON.
func (a *Answer) Marshal() ([]byte, error) { return marshal(a) }

// Marshal returns the pending challenge as indented JSON.
func (p *Pending) Marshal() ([]byte, error) { return marshal(p) }
