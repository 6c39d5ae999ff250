package main

import (
	"context"
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// check has the TPM execute the policy's parts, each on a session of its own. No
// password is presented.
func (p *policyState) check(ctx context.Context, d *tpm.Device, signed func(context.Context) (*policy.SignedPCRs, error)) error {
	return d.Do(ctx, func(t transport.TPM) error {
		c := &policyCheck{ctx: ctx, t: t, policy: p.policy, in: policy.Inputs{
			Expected: p.snapshot,
			Secret:   func(context.Context, policy.Secret) (tpm2.Session, error) { return nil, errNotAsked },
		}}
		now, err := c.values()
		if err != nil {
			return err
		}
		for _, s := range p.Steps {
			c.step(s, p, now, signed)
		}
		in := c.in
		in.Signed = signed
		var whole judgement
		whole.set(c.execute(p.policy, in))
		p.Holds, p.Why = whole.Holds, whole.Why
		return ctx.Err()
	})
}

type policyCheck struct {
	ctx    context.Context
	t      transport.TPM
	policy *policy.Policy
	in     policy.Inputs
}

// values reads every PCR that is named.
func (c *policyCheck) values() (policy.Values, error) {
	now := policy.Values{}
	for _, s := range c.policy.PCRs() {
		some, err := policy.Read(c.ctx, c.t, s.Selection)
		if err != nil {
			return nil, err
		}
		merge(now, some)
	}
	return now, nil
}

func (c *policyCheck) step(s *stepState, p *policyState, now policy.Values, signed func(context.Context) (*policy.SignedPCRs, error)) {
	alone := &policy.Policy{Hash: c.policy.Hash, Steps: []policy.Step{s.step}}
	switch step := s.step.(type) {
	case policy.PCR:
		s.PCRs = pcrStates(step, p.snapshot, c.policy.Hash, now)
		s.set(alone.Explain(c.ctx, c.t, p.snapshot))
	case policy.AuthValue, policy.Secret:
		s.Why = errNotAsked.Error()
	case policy.Authorize:
		s.SignedFile = &judgement{}
		in := c.in
		in.Signed = signed
		s.SignedFile.set(c.execute(alone, in))
		some := s.SignedFile.Holds != nil && *s.SignedFile.Holds
		for _, a := range s.Alternatives {
			a.set(c.execute(&policy.Policy{Hash: c.policy.Hash, Steps: a.alternative.Steps}, c.in))
			a.PCRs = alternativePCRs(a.alternative, p, now)
			some = some || a.Holds != nil && *a.Holds
		}
		s.Holds = &some
	case policy.Or:
		some := false
		for _, a := range s.Alternatives {
			a.set(c.execute(&policy.Policy{Hash: c.policy.Hash, Steps: a.alternative.Steps}, c.in))
			a.PCRs = alternativePCRs(a.alternative, p, now)
			some = some || a.Holds != nil && *a.Holds
		}
		s.Holds = &some
	default:
		yes := true
		s.Holds = &yes
	}
}

func (c *policyCheck) execute(p *policy.Policy, in policy.Inputs) (err error) {
	session, end, err := tpm2.PolicySession(c.t, p.Hash, 16)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	_, err = p.Execute(c.ctx, c.t, session.Handle(), in)
	return err
}
