package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// A policyState is a key's policy, and what of it holds.
type policyState struct {
	Digest string       `json:"digest"`
	Error  string       `json:"error,omitempty"` // why it is not known
	Steps  []*stepState `json:"steps,omitempty"`

	// Holds: all steps do, but for passwords. Nil if that is not known.
	Holds *bool  `json:"holds,omitempty"`
	Why   string `json:"why,omitempty"`

	policy   *policy.Policy
	snapshot *policy.Snapshot
}

// A stepState is one step of a policy.
type stepState struct {
	Step string `json:"step"` // the TPM's command, such as "PolicyPCR"
	Says string `json:"says"`
	judgement

	PCRs []pcrState `json:"pcrs,omitempty"`

	// Of a policy that somebody signs, and of one of several policies.
	Approver     string              `json:"approver,omitempty"`      // SHA-256 of its public key
	ApproverPKFP string              `json:"approverPKFP,omitempty"`  // its name in a file of signed PCR policies
	Alternatives []*alternativeState `json:"alternatives,omitempty"`  // in the key file
	SignedFile   *judgement          `json:"signatureFile,omitempty"` // --tpm-pcr-signature

	step policy.Step
}

// A judgement says whether something holds. Nil if that is not known.
type judgement struct {
	Holds *bool  `json:"holds,omitempty"`
	Why   string `json:"why,omitempty"`

	pcrs bool // it is PCRs that do not have their values
	none bool // there is no file
}

func (j *judgement) set(err error) {
	holds := err == nil
	switch {
	case holds:
		j.Holds = &holds
	case errors.Is(err, errNotAsked):
		j.Why = err.Error()
	default:
		j.Holds, j.Why = &holds, strings.TrimPrefix(err.Error(), "TPM policy: ")
		j.pcrs, j.none = errors.Is(err, policy.ErrPCRMismatch), errors.Is(err, fs.ErrNotExist)
	}
}

type alternativeState struct {
	Name string `json:"name,omitempty"`
	Says string `json:"says"`
	judgement
	PCRs []pcrState `json:"pcrs,omitempty"`

	alternative policy.Alternative
}

type pcrState struct {
	Bank     string `json:"bank"`
	PCR      int    `json:"pcr"`
	Measures string `json:"measures"`
	Moved    *bool  `json:"moved,omitempty"` // nil if it is not known what it was
	Was      string `json:"was,omitempty"`
	Is       string `json:"is,omitempty"`
}

// describe fills in what is known without a TPM.
func (p *policyState) describe() {
	for i, s := range p.policy.Steps {
		st := &stepState{Step: stepName(s), Says: s.String(), step: s}
		if s, ok := s.(policy.PCR); ok {
			st.PCRs = pcrStates(s, p.snapshot, p.policy.Hash, nil)
		}
		if by, ok := s.(policy.Authorize); ok {
			st.approver(by)
		}
		if i == 0 {
			for _, a := range p.policy.Alternatives {
				st.Alternatives = append(st.Alternatives, &alternativeState{Name: a.Name, Says: stepsOf(a), alternative: a, PCRs: alternativePCRs(a, p, nil)})
			}
		}
		p.Steps = append(p.Steps, st)
	}
}

func (s *stepState) approver(by policy.Authorize) {
	pub, err := tpm2.Pub(by.Public)
	if err != nil {
		return
	}
	s.Approver = fingerprint(pub)
	if fp, err := policy.Fingerprint(pub); err == nil {
		s.ApproverPKFP = hex.EncodeToString(fp)
	}
}

func stepName(s policy.Step) string {
	switch s.(type) {
	case policy.PCR:
		return "PolicyPCR"
	case policy.AuthValue:
		return "PolicyAuthValue"
	case policy.Secret:
		return "PolicySecret"
	case policy.Authorize:
		return "PolicyAuthorize"
	case policy.Or:
		return "PolicyOR"
	}
	return "PolicyCommandCode"
}

// stepsOf describes what an alternative asks for, without the signature.
func stepsOf(a policy.Alternative) string {
	steps := a.Steps
	if n := len(steps); n > 1 {
		if _, ok := steps[n-1].(policy.Authorize); ok {
			steps = steps[:n-1]
		}
	}
	return (&policy.Policy{Steps: steps}).String()
}

// pcrStates lists the PCRs of a step, with what they were and are, as far as
// that is known.
func pcrStates(s policy.PCR, snapshot *policy.Snapshot, hash tpm2.TPMIAlgHash, now policy.Values) []pcrState {
	var was policy.Values
	if snapshot != nil {
		if d, err := snapshot.Values.Digest(hash, s.Selection); err == nil && bytes.Equal(d, s.Digest) {
			was = snapshot.Values
		}
	}
	if d, err := now.Digest(hash, s.Selection); err == nil && bytes.Equal(d, s.Digest) {
		was = now
	}
	var all []pcrState
	for _, b := range s.Selection {
		bank, _, _ := strings.Cut(policy.Selection{b}.String(), ":")
		for _, pcr := range b.PCRs {
			st := pcrState{Bank: bank, PCR: pcr, Measures: policy.DescribePCR(pcr), Was: hex.EncodeToString(was[b.Hash][pcr]), Is: hex.EncodeToString(now[b.Hash][pcr])}
			if st.Was != "" && st.Is != "" {
				moved := st.Was != st.Is
				st.Moved = &moved
			}
			all = append(all, st)
		}
	}
	return all
}

func alternativePCRs(a policy.Alternative, p *policyState, now policy.Values) []pcrState {
	var all []pcrState
	for _, s := range (&policy.Policy{Steps: a.Steps}).PCRs() {
		all = append(all, pcrStates(s, p.snapshot, p.policy.Hash, now)...)
	}
	return all
}

// breaks says what would keep the policy from being satisfied.
func (p *policyState) breaks() []string {
	var all []string
	for _, s := range p.policy.Steps {
		switch s := s.(type) {
		case policy.PCR:
			for _, st := range pcrStates(s, nil, p.policy.Hash, nil) {
				all = append(all, fmt.Sprintf("PCR %d of %s changes: %s", st.PCR, st.Bank, whatChanges(st.PCR)))
			}
		case policy.Authorize:
			if s.Signature == nil {
				all = append(all, "the machine boots into a state that its approver has not approved: holdfast key reseal mends that, with the approver's key")
			}
		case policy.AuthValue:
			all = append(all, "its password is forgotten")
		case policy.Secret:
			all = append(all, fmt.Sprintf("%s is forgotten, or changed", s))
		}
	}
	return all
}

// whatChanges says by what a PCR comes to have another value.
func whatChanges(pcr int) string {
	switch pcr {
	case 0, 2:
		return "firmware is updated"
	case 1, 3:
		return "firmware settings or hardware change, or firmware is updated"
	case 4:
		return "the boot loader is updated"
	case 5:
		return "the partition table or the boot loader's settings change"
	case 7:
		return "Secure Boot is switched, or its keys or lists of revoked programs are updated"
	case 8, 9, 12:
		return "the kernel, the initrd or the kernel's command line changes"
	case 10:
		return "files that IMA measures change, or are opened in another order"
	case 11:
		return "the unified kernel image is updated, or a later boot phase begins"
	case 14:
		return "keys of shim (MOK) are enrolled or removed"
	}
	return "it is extended (" + policy.DescribePCR(pcr) + ")"
}
