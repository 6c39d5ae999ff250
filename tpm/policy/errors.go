package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// Errors a caller may decide by.
var (
	// ErrUnsupported: the policy has a command this package does not execute.
	ErrUnsupported = errors.New("unsupported TPM policy")

	// ErrPCRMismatch: PCR values are not those the key is bound to. The error
	// is usually a [*PCRError].
	ErrPCRMismatch = errors.New("PCR values are not those the key is bound to")

	// ErrNoSignedPolicy: nobody has signed a policy for the present PCR values.
	ErrNoSignedPolicy = errors.New("no signed policy for the present PCR values")

	// ErrBadSignature: the TPM refused the signature of a signed policy.
	ErrBadSignature = errors.New("signature of the signed policy is wrong")

	// ErrPolicyMismatch: the policy is not the one its key was made with.
	ErrPolicyMismatch = errors.New("policy is not the key's")
)

// A PCRError says which PCRs moved. It wraps [ErrPCRMismatch].
type PCRError struct {
	// Selection is what the policy covers.
	Selection Selection

	// Changes are the PCRs that moved, if the values the key was bound to are
	// known.
	Changes []Change
}

// A Change is a PCR that moved.
type Change struct {
	Bank    tpm2.TPMIAlgHash
	PCR     int
	Was, Is []byte
}

func (c Change) String() string {
	name := ""
	if c.Bank != tpm2.TPMAlgSHA256 {
		name = bankName(c.Bank) + " "
	}
	return fmt.Sprintf("%sPCR %d (%s) changed: was %x, is %x", name, c.PCR, DescribePCR(c.PCR), c.Was, c.Is)
}

func (e *PCRError) Error() string {
	if len(e.Changes) == 0 {
		return fmt.Sprintf("%v: one or more of %s changed; which cannot be told without the values the key was bound to", ErrPCRMismatch, e.Selection)
	}
	var all []string
	for _, c := range e.Changes {
		all = append(all, c.String())
	}
	return fmt.Sprintf("%v: %s", ErrPCRMismatch, strings.Join(all, "; "))
}

// Unwrap returns [ErrPCRMismatch].
func (e *PCRError) Unwrap() error { return ErrPCRMismatch }

// Hint implements the method that [signer.Hint] looks for.
func (e *PCRError) Hint() string {
	return "if the change is yours (firmware, boot loader, kernel or secure boot keys were updated), a key with an approver goes on once the new values are approved (holdfast key reseal), any other has to be made anew; if it is not yours, find out what booted"
}

// notApproved is ErrNoSignedPolicy with the reason.
type notApproved struct{ why error }

func (e *notApproved) Error() string   { return ErrNoSignedPolicy.Error() + ": " + e.why.Error() }
func (e *notApproved) Unwrap() []error { return []error{ErrNoSignedPolicy, e.why} }

// reason returns err without the words of ErrNoSignedPolicy, which are said
// once. Its hint remains.
func reason(err error) error {
	var e *notApproved
	if errors.As(err, &e) {
		return signer.WithHint(e.why, signer.Hint(err))
	}
	return err
}

func malformed(format string, a ...any) error {
	return fmt.Errorf("policy: %w: %s", signer.ErrMalformed, fmt.Sprintf(format, a...))
}
