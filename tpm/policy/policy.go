package policy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// MaxBranches is how many policies an [Or] can join.
const MaxBranches = 8

// A Policy is what has to be done on a policy session before the TPM lets the
// key be used. It is not changed by being executed.
type Policy struct {
	// Hash is the key's name algorithm, and so the policy session's.
	Hash tpm2.TPMIAlgHash

	// Steps run in this order.
	Steps []Step

	// Alternatives serve the first step: signed policies if it is an
	// [Authorize], branches if it is an [Or].
	Alternatives []Alternative
}

// An Alternative is a policy of its own, tried from a session's start.
type Alternative struct {
	Name  string // for people; may be empty
	Steps []Step
}

// Digest computes, without a TPM, the digest that a key bound to p has as its
// authPolicy.
func (p *Policy) Digest() ([]byte, error) {
	c, err := newCalculator(p.Hash)
	if err != nil {
		return nil, err
	}
	return c.run(p.Steps)
}

// Check returns an error that wraps [ErrPolicyMismatch] if a key with this
// authPolicy is bound to something else than p.
func (p *Policy) Check(authPolicy []byte) error {
	got, err := p.Digest()
	if err != nil {
		return err
	}
	if !bytes.Equal(got, authPolicy) {
		return fmt.Errorf("%w: its steps come to %x, the key wants %x", ErrPolicyMismatch, got, authPolicy)
	}
	return nil
}

// NeedsAuth reports whether the key's own auth value is wanted, by any way
// through the policy.
func (p *Policy) NeedsAuth() bool {
	if hasAuth(p.Steps) {
		return true
	}
	for _, a := range p.Alternatives {
		if hasAuth(a.Steps) {
			return true
		}
	}
	return false
}

func hasAuth(steps []Step) bool {
	for _, s := range steps {
		if _, ok := s.(AuthValue); ok {
			return true
		}
	}
	return false
}

// PCRs returns every PCR step of p, those of its alternatives included.
func (p *Policy) PCRs() []PCR {
	var all []PCR
	add := func(steps []Step) {
		for _, s := range steps {
			if s, ok := s.(PCR); ok {
				all = append(all, s)
			}
		}
	}
	add(p.Steps)
	for _, a := range p.Alternatives {
		add(a.Steps)
	}
	return all
}

// String describes p for people, on one line.
func (p *Policy) String() string {
	s := describe(p.Steps)
	if len(p.Alternatives) == 0 {
		return s
	}
	var alts []string
	for _, a := range p.Alternatives {
		if a.Name != "" {
			alts = append(alts, fmt.Sprintf("%q: %s", a.Name, describe(a.Steps)))
		} else {
			alts = append(alts, describe(a.Steps))
		}
	}
	return s + " {" + strings.Join(alts, " | ") + "}"
}

func describe(steps []Step) string {
	if len(steps) == 0 {
		return "nothing"
	}
	var all []string
	for _, s := range steps {
		all = append(all, s.String())
	}
	return strings.Join(all, ", then ")
}

// Either returns the policy that is satisfied by any of the branches, whose
// hash algorithms must agree. Steps that are to follow whichever branch was
// taken may be appended to it.
func Either(branches ...*Policy) (*Policy, error) {
	if len(branches) < 2 || len(branches) > MaxBranches {
		return nil, fmt.Errorf("policy: an Or joins 2 to %d policies, not %d", MaxBranches, len(branches))
	}
	p := &Policy{Hash: branches[0].Hash}
	var or Or
	for _, b := range branches {
		if b.Hash != p.Hash {
			return nil, errors.New("policy: the branches of an Or have different hash algorithms")
		}
		if len(b.Alternatives) != 0 {
			return nil, fmt.Errorf("policy: %w: a branch of an Or with alternatives of its own", ErrUnsupported)
		}
		d, err := b.Digest()
		if err != nil {
			return nil, err
		}
		or.Digests = append(or.Digests, d)
		p.Alternatives = append(p.Alternatives, Alternative{Steps: b.Steps})
	}
	p.Steps = []Step{or}
	return p, nil
}
