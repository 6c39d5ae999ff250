package policy

import (
	"bytes"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Step is one of [PCR], [AuthValue], [Secret], [Authorize], [Or] and
// [CommandCode].
type Step interface {
	// Command is the TPM command's code.
	Command() tpm2.TPMCC

	// String describes the step for people.
	String() string

	body() []byte
	extend(*calculator) error
}

// PCR is TPM2_PolicyPCR: the selected PCRs have the values they had.
type PCR struct {
	Selection Selection

	// Digest is over the values, in the policy's hash. See [Values.Digest].
	Digest []byte
}

// AuthValue is TPM2_PolicyAuthValue: the key's auth value is known.
type AuthValue struct {
	// Password is set when the file says TPM2_PolicyPassword. Both have one
	// digest, and TPM2_PolicyAuthValue is executed for both, for then the auth
	// value keys an HMAC and does not travel.
	Password bool
}

// Secret is TPM2_PolicySecret: the auth value of another object is known.
type Secret struct {
	// Object is a permanent handle, an NV index or a persistent key. 0 in a
	// file, where the handle is only a hint, cannot be executed.
	Object tpm2.TPMHandle

	// Name is the object's Name, for permanent handles their four bytes.
	Name []byte

	Ref []byte
}

// Authorize is TPM2_PolicyAuthorize: what was executed so far was approved by
// the holder of a key.
type Authorize struct {
	// Public is the approver's key. [AuthorizeBy] makes it.
	Public tpm2.TPMTPublic

	Ref []byte

	// Signature approves the steps before this one. Nil where any signed
	// policy will do.
	Signature *tpm2.TPMTSignature
}

// Or is TPM2_PolicyOR: one of several policies was satisfied.
type Or struct {
	Digests [][]byte
}

// CommandCode is TPM2_PolicyCommandCode: the key is used by that command only.
type CommandCode struct {
	Code tpm2.TPMCC
}

func (PCR) Command() tpm2.TPMCC { return tpm2.TPMCCPolicyPCR }

func (a AuthValue) Command() tpm2.TPMCC {
	if a.Password {
		return tpm2.TPMCCPolicyPassword
	}
	return tpm2.TPMCCPolicyAuthValue
}
func (Secret) Command() tpm2.TPMCC      { return tpm2.TPMCCPolicySecret }
func (Authorize) Command() tpm2.TPMCC   { return tpm2.TPMCCPolicyAuthorize }
func (Or) Command() tpm2.TPMCC          { return tpm2.TPMCCPolicyOR }
func (CommandCode) Command() tpm2.TPMCC { return tpm2.TPMCCPolicyCommandCode }

func (s PCR) String() string         { return "PCRs " + s.Selection.String() }
func (AuthValue) String() string     { return "the key's password" }
func (s Secret) String() string      { return "the password of " + objectName(s.Object) }
func (s Or) String() string          { return fmt.Sprintf("one of %d policies", len(s.Digests)) }
func (s CommandCode) String() string { return "only " + commandName(s.Code) }

func (s Authorize) String() string {
	if s.Signature != nil {
		return "signed by " + s.keyID()
	}
	return "a policy signed by " + s.keyID()
}

// keyID shortens the approver's fingerprint for people.
func (s Authorize) keyID() string {
	pub, err := tpm2.Pub(s.Public)
	if err != nil {
		return "an unknown key"
	}
	fp, err := Fingerprint(pub)
	if err != nil {
		return "an unknown key"
	}
	return fmt.Sprintf("key %x…", fp[:8])
}

// Name returns the Name of the approver's key.
func (s Authorize) Name() ([]byte, error) {
	name, err := tpm2.ObjectName(&s.Public)
	if err != nil {
		return nil, fmt.Errorf("policy: the approver's key: %w", err)
	}
	return name.Buffer, nil
}

// serves reports whether the approval counts where want is wanted: it is of the
// same key, for the same reference.
func (s Authorize) serves(want Authorize) bool {
	a, err := s.Name()
	if err != nil {
		return false
	}
	b, err := want.Name()
	return err == nil && bytes.Equal(a, b) && bytes.Equal(s.Ref, want.Ref)
}

func objectName(h tpm2.TPMHandle) string {
	switch h {
	case tpm2.TPMRHOwner:
		return "the owner hierarchy"
	case tpm2.TPMRHEndorsement:
		return "the endorsement hierarchy"
	case tpm2.TPMRHPlatform:
		return "the platform hierarchy"
	case tpm2.TPMRHLockout:
		return "the lock-out hierarchy"
	}
	return fmt.Sprintf("object %#08x", uint32(h))
}

// commandName names the policy commands, and those a policy may name.
func commandName(cc tpm2.TPMCC) string {
	name, ok := map[tpm2.TPMCC]string{
		tpm2.TPMCCPolicyNV:                "PolicyNV",
		tpm2.TPMCCPolicySecret:            "PolicySecret",
		tpm2.TPMCCPolicySigned:            "PolicySigned",
		tpm2.TPMCCPolicyAuthorize:         "PolicyAuthorize",
		tpm2.TPMCCPolicyAuthValue:         "PolicyAuthValue",
		tpm2.TPMCCPolicyCommandCode:       "PolicyCommandCode",
		tpm2.TPMCCPolicyCounterTimer:      "PolicyCounterTimer",
		tpm2.TPMCCPolicyCpHash:            "PolicyCpHash",
		tpm2.TPMCCPolicyLocality:          "PolicyLocality",
		tpm2.TPMCCPolicyNameHash:          "PolicyNameHash",
		tpm2.TPMCCPolicyOR:                "PolicyOR",
		tpm2.TPMCCPolicyTicket:            "PolicyTicket",
		tpm2.TPMCCPolicyPCR:               "PolicyPCR",
		tpm2.TPMCCPolicyRestart:           "PolicyRestart",
		tpm2.TPMCCPolicyPhysicalPresence:  "PolicyPhysicalPresence",
		tpm2.TPMCCPolicyDuplicationSelect: "PolicyDuplicationSelect",
		tpm2.TPMCCPolicyGetDigest:         "PolicyGetDigest",
		tpm2.TPMCCPolicyPassword:          "PolicyPassword",
		tpm2.TPMCCPolicyNvWritten:         "PolicyNvWritten",
		tpm2.TPMCCPolicyTemplate:          "PolicyTemplate",
		tpm2.TPMCCPolicyAuthorizeNV:       "PolicyAuthorizeNV",
		tpm2.TPMCCSign:                    "Sign",
		tpm2.TPMCCCertify:                 "Certify",
		tpm2.TPMCCDuplicate:               "Duplicate",
		tpm2.TPMCCUnseal:                  "Unseal",
	}[cc]
	if !ok {
		return fmt.Sprintf("command %#x", uint32(cc))
	}
	return "TPM2_" + name
}
