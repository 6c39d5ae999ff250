package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// policyHash is the name algorithm of the keys that are made here, and so the
// hash of their policies.
const policyHash = tpm2.TPMAlgSHA256

// A binding is what ties a key to be made to the machine's boot state. Its zero
// value ties it to nothing.
type binding struct {
	fixed    policy.Selection // for ever, at their present values
	approved policy.Selection // as the approver says
	approver crypto.PublicKey
	by       policy.Authorize

	// read fills these.
	steps    []policy.Step
	snapshot *policy.Snapshot
}

// wantedBinding reads the flags.
func (f *newKeyFlags) wantedBinding(cmd *cobra.Command) (*binding, error) {
	b := &binding{}
	var err error
	if cmd.Flags().Changed("tpm-pcrs") {
		if b.fixed, err = policy.ParseSelection(f.pcrs); err != nil {
			return nil, usageError(cmd, fmt.Errorf("--tpm-pcrs: %w", err))
		}
	}
	if f.publicKey == "" {
		return b, nil
	}
	if b.approver, err = readPublicKey(f.publicKey); err != nil {
		return nil, identityError(err)
	}
	if b.by, err = policy.AuthorizeBy(b.approver); err != nil {
		return nil, identityError(fmt.Errorf("%s: %w", f.publicKey, err))
	}
	if b.approved, err = policy.ParseSelection(f.publicKeyPCRs); err != nil {
		return nil, usageError(cmd, fmt.Errorf("--tpm-public-key-pcrs: %w", err))
	}
	if both := common(b.fixed, b.approved); len(both) > 0 {
		return nil, usageError(cmd, fmt.Errorf("PCRs %s are in --tpm-pcrs and in --tpm-public-key-pcrs: bound for ever, nobody can approve other values", both))
	}
	return b, nil
}

// read takes the PCR values from the TPM and makes the policy's first steps.
func (b *binding) read(ctx context.Context, a *app, d *tpm.Device) (*binding, error) {
	if b.fixed == nil && b.approver == nil {
		return b, nil
	}
	err := d.Do(ctx, func(t transport.TPM) error {
		if b.approver != nil {
			if err := loads(t, b.by.Public); err != nil {
				return err
			}
			b.steps = append(b.steps, b.by)
		}
		return b.readValues(ctx, t)
	})
	if err != nil {
		return nil, err
	}
	if empty := unmeasured(b.approved, b.snapshot.Values); len(empty) > 0 {
		a.say.Warn(fmt.Sprintf("nothing was measured into PCRs %s, which are to be approved, since the machine started", empty))
	}
	if b.fixed == nil {
		return b, nil
	}
	step, err := policy.NewPCR(policyHash, b.fixed, b.snapshot.Values)
	if err != nil {
		return nil, err
	}
	b.steps = append(b.steps, step)
	return b, b.judge(a)
}

func (b *binding) readValues(ctx context.Context, t transport.TPM) error {
	values := policy.Values{}
	for _, sel := range []policy.Selection{b.fixed, b.approved} {
		some, err := policy.Read(ctx, t, sel)
		if err != nil {
			return err
		}
		merge(values, some)
	}
	b.snapshot = &policy.Snapshot{Values: values}
	return nil
}

// judge refuses PCRs that say nothing about the machine, and warns of those
// that will not stay as they are.
func (b *binding) judge(a *app) error {
	if err := a.measured(b.fixed, b.snapshot.Values); err != nil {
		return err
	}
	var all []string
	for _, by := range []struct {
		what string
		pcrs []int
	}{{"of firmware", []int{0, 1, 2, 3}}, {"of boot loader, kernel or their settings", []int{4, 5, 8, 9, 11, 12}}} {
		found := chosen(b.fixed, func(_ tpm2.TPMIAlgHash, pcr int) bool { return slices.Contains(by.pcrs, pcr) })
		if len(found) > 0 {
			all = append(all, fmt.Sprintf("an update %s changes PCRs %s", by.what, found))
		}
	}
	if len(all) > 0 {
		a.say.Warn(strings.Join(all, ", ") + ", and ends this key: --tpm-public-key and --tpm-public-key-pcrs make one that outlives it")
	}
	return nil
}

// measured refuses PCRs if nothing was measured into any of them, and warns if
// into some.
func (a *app) measured(sel policy.Selection, values policy.Values) error {
	empty := unmeasured(sel, values)
	switch {
	case len(empty) == 0:
		return nil
	case empty.String() == sel.String():
		return signer.WithHint(fmt.Errorf("nothing was measured into PCRs %s since the machine started: a key bound to them is bound to nothing", empty),
			"choose PCRs that the firmware measures into, and a bank that it has switched on: holdfast key pcrs --tpm-pcrs sha256:0,1,2,3,4,5,6,7")
	}
	a.say.Warn(fmt.Sprintf("nothing was measured into PCRs %s since the machine started", empty))
	return nil
}

// apply puts the policy into what the TPM is asked for.
func (b *binding) apply(o *tpm.CreateOptions) error {
	if len(b.steps) == 0 {
		return nil
	}
	p := &policy.Policy{Hash: policyHash, Steps: b.steps}
	if !o.Auth.Empty() {
		p.Steps = append(p.Steps, policy.AuthValue{})
	}
	var err error
	if o.PolicyDigest, err = p.Digest(); err != nil {
		return err
	}
	o.Policy, o.AuthPolicy, err = p.Marshal()
	return err
}

// notes tell a person what the key at path is bound to.
func (b *binding) notes(path string) []string {
	var all []string
	if b.fixed != nil {
		all = append(all, fmt.Sprintf("it signs only while PCRs %s are as they are now", b.fixed))
	}
	if b.approver != nil {
		all = append(all, fmt.Sprintf("it signs only where its approver has approved the values of PCRs %s: holdfast key reseal --private-key %s --approver KEY", b.approved, path))
	}
	if b.snapshot != nil {
		all = append(all, fmt.Sprintf("the present PCR values are kept in %s, so that it can be told which one moved", policy.SnapshotPath(path)))
	}
	return all
}

// loads tells whether the TPM can check the signatures of such a key.
func loads(t transport.TPM, public tpm2.TPMTPublic) error {
	key, err := tpm2.LoadExternal{InPublic: tpm2.New2B(public), Hierarchy: tpm2.TPMRHNull}.Execute(t)
	if err != nil {
		var rc tpm2.TPMRC
		if !errors.As(err, &rc) || rc&0x80 == 0 { // not about what is to be loaded
			return fmt.Errorf("--tpm-public-key: trying whether the TPM can check its signatures: %w", err)
		}
		return signer.WithHint(fmt.Errorf("--tpm-public-key: %w: the TPM cannot check its signatures: %w", signer.ErrUnsupportedKey, err),
			"take an RSA-2048 or EC P-256 key, which every TPM 2.0 knows")
	}
	_, err = tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(t)
	return err
}
