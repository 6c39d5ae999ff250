package policy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// Of several approvals for the same PCRs, the error is that of the one whose
// values are known, and it is said once that none fits.
func TestWhichApprovalMoved(t *testing.T) {
	approver, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		by := authorizeBy(t, approver)
		p := of(by)
		k := newKey(t, tpm, p, "")
		snapshot := &policy.Snapshot{}
		for _, name := range []string{"first", "second"} {
			extend(t, tpm, 16, name)
			snapshot.Values = read(t, tpm, selection(t, "16"))
			a, err := policy.Approve(rand.Reader, approver, p.Hash, by, name, []policy.Step{bound(t, tpm, "16")})
			if err != nil {
				t.Fatal(err)
			}
			p.Alternatives = append([]policy.Alternative{a}, p.Alternatives...)
		}
		extend(t, tpm, 16, "an update")
		noFile := func(context.Context) (*policy.SignedPCRs, error) {
			return policy.LoadSignedPCRs("", []string{t.TempDir()})
		}
		for name, in := range map[string]policy.Inputs{
			"no file wanted": {Expected: snapshot},
			"no file":        {Expected: snapshot, Signed: noFile},
			"another's file": {Expected: snapshot, Signed: always(&policy.SignedPCRs{})},
		} {
			err := k.sign(t, p, in)
			if !errors.Is(err, policy.ErrNoSignedPolicy) || !errors.Is(err, policy.ErrPCRMismatch) || !strings.Contains(err.Error(), `"second": PCR values are not those the key is bound to: PCR 16 (debug) changed`) {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if strings.Contains(err.Error(), `"first"`) || strings.Count(err.Error(), "no signed policy") != 1 || !strings.Contains(signer.Hint(err), "approved") {
				t.Errorf("%s: %v; %s", name, err, signer.Hint(err))
			}
			if in.Signed != nil && !strings.Contains(err.Error(), "signed PCR policies") {
				t.Errorf("%s: the file is not spoken of: %v", name, err)
			}
		}
		if err := k.sign(t, p, policy.Inputs{}); err == nil || !strings.Contains(err.Error(), `"first"`) || !strings.Contains(err.Error(), `"second"`) {
			t.Errorf("nothing known: %v", err)
		}
	})
}
