package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// A Policy is what has to be done on a policy session before a key may be used.
// A *policy.Policy is one.
type Policy interface {
	// NeedsAuth reports whether the key's authorization value is wanted too.
	NeedsAuth() bool

	// Execute runs the policy on a policy session that is as it began. What
	// else it loads it flushes.
	Execute(ctx context.Context, t transport.TPM, session tpm2.TPMHandle, in policy.Inputs) (policy.Outcome, error)
}

// pcrTries bounds how often a policy is executed anew because a PCR was
// extended between it and the key's use.
const pcrTries = 5

// policyOf returns the policy that the key has to be used with, nil if its
// authorization value alone does.
func policyOf(public *tpm2.TPMTPublic, file *KeyFile, given Policy) (Policy, error) {
	if given != nil {
		return given, nil
	}
	if file != nil && file.Policy != nil {
		p, err := policy.Parse(public.NameAlg, file.Policy, file.AuthPolicy)
		if err != nil {
			return nil, err
		}
		return p, p.Check(public.AuthPolicy.Buffer)
	}
	switch {
	case public.ObjectAttributes.UserWithAuth:
		return nil, nil
	case len(public.AuthPolicy.Buffer) == 0:
		return nil, unsupported("a key that nothing authorizes: neither a password nor a policy")
	}
	return nil, signer.WithHint(unsupported("a policy binds it that is not given with it"),
		"use the key file that was written when the key was made")
}

// policySession returns a policy session on which the key's policy has been
// executed. The session is kept: a successful use makes it as it began, and after
// any other it is restarted.
func (o *op) policySession(k *Key) (s *session, outcome policy.Outcome, err error) {
	d := o.d
	if k.session != nil && k.session.bad && slices.Contains(d.policies, k.session) {
		if err := o.flush(k.session.handle); err != nil {
			return nil, outcome, err
		}
	}
	if k.session == nil || !slices.Contains(d.policies, k.session) {
		s, err := o.newPolicySession(k)
		if err != nil {
			return nil, outcome, err
		}
		d.live.keep(s.handle, true)
		d.policies = append(d.policies, s)
		k.session = s
	} else if k.dirty {
		if err := policy.Restart(o, k.session.handle); err != nil {
			return nil, outcome, err
		}
	}
	k.dirty = true
	in := k.opts.Inputs
	if in.Secret == nil && k.opts.OwnerAuth != nil {
		in.Secret = func(_ context.Context, s policy.Secret) (tpm2.Session, error) {
			switch c := k.hierarchyCredential(); {
			case bytes.Equal(s.Name, c.name):
				return o.authorize(c, nil, true, false)
			case s.Object == tpm2.TPMRHOwner, s.Object == tpm2.TPMRHEndorsement:
				return emptyAuth(), nil // as they usually are
			}
			return nil, fmt.Errorf("no password for object %#x", uint32(s.Object))
		}
	}
	outcome, err = k.policy.Execute(o.ctx, o, k.session.handle, in)
	return k.session, outcome, err
}

func (o *op) newPolicySession(k *Key) (*session, error) {
	if k.policy.NeedsAuth() {
		return o.saltedSession(tpm2.TPMSEPolicy, k.public.NameAlg, nil)
	}
	return o.startSession(tpm2.TPMSEPolicy, k.public.NameAlg, nil)
}

// explainPolicy makes what the TPM says at a key's use into words.
func explainPolicy(err error) error {
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		return signer.WithHint(fmt.Errorf("its policy is not satisfied: %w", err), "see what binds it: holdfast key show")
	}
	return err
}
