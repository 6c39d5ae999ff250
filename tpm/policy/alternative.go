package policy

import (
	"errors"
	"fmt"
	"slices"
)

// approved finds a signed policy that fits the present state and executes it:
// one of the signature file first, then the key file's own.
func (r *run) approved(s Authorize, alternatives []Alternative) error {
	err := r.approvedPCRs(s)
	if err == nil || !mayTryAnother(err) {
		return err
	}
	if len(alternatives) == 0 {
		return err
	}
	var tried []error
	notInFile := err
	for _, a := range alternatives {
		if len(a.Steps) == 0 {
			continue
		}
		if last, ok := a.Steps[len(a.Steps)-1].(Authorize); !ok || last.Signature == nil || !last.serves(s) {
			continue
		}
		if err := r.restart(); err != nil {
			return err
		}
		err := r.steps(a.Steps, nil)
		if err == nil {
			r.outcome.Alternative = a.Name
			return nil
		}
		if !mayTryAnother(err) {
			return err
		}
		tried = append(tried, inAlternative(a, err))
	}
	tried = telling(tried)
	if r.in.Signed != nil {
		tried = append(tried, reason(notInFile))
	}
	if len(tried) == 0 {
		return notInFile
	}
	return &notApproved{oneLine(tried)}
}

// telling leaves out, where one error says which PCR moved, those that only say
// that one did: they are of other signed policies for the same PCRs.
func telling(tried []error) []error {
	vague := func(err error) bool {
		var e *PCRError
		return errors.As(err, &e) && len(e.Changes) == 0
	}
	says := func(err error) bool {
		var e *PCRError
		return errors.As(err, &e) && len(e.Changes) > 0
	}
	if !slices.ContainsFunc(tried, says) {
		return tried
	}
	return slices.DeleteFunc(tried, vague)
}

// branch executes the first branch that the state allows, and the Or.
func (r *run) branch(s Or, alternatives []Alternative) error {
	var tried []error
	for _, a := range alternatives {
		d, err := (&Policy{Hash: r.hash, Steps: a.Steps}).Digest()
		if err != nil {
			return inAlternative(a, err)
		}
		if !slices.ContainsFunc(s.Digests, func(b []byte) bool { return string(b) == string(d) }) {
			continue
		}
		if len(tried) > 0 {
			if err := r.restart(); err != nil {
				return err
			}
		}
		err = r.steps(a.Steps, nil)
		if err == nil {
			r.outcome.Alternative = a.Name
			return r.or(s)
		}
		if !mayTryAnother(err) {
			return err
		}
		tried = append(tried, inAlternative(a, err))
	}
	if len(tried) == 0 {
		return fmt.Errorf("%w: the key file has none of the policies that its Or joins", ErrUnsupported)
	}
	return oneLine(tried)
}

// mayTryAnother tells a policy that does not fit from a failure that another
// policy would not mend, or that may have cost a lock-out try.
func mayTryAnother(err error) bool {
	return errors.Is(err, ErrPCRMismatch) || errors.Is(err, ErrNoSignedPolicy) || errors.Is(err, ErrBadSignature)
}

func inAlternative(a Alternative, err error) error {
	if a.Name == "" {
		return err
	}
	return fmt.Errorf("%q: %w", a.Name, err)
}

// joined is errors.Join on one line.
type joined []error

func oneLine(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return joined(errs)
}

func (j joined) Unwrap() []error { return j }

func (j joined) Error() string {
	s := ""
	for i, err := range j {
		if i > 0 {
			s += "; "
		}
		s += err.Error()
	}
	return s
}
