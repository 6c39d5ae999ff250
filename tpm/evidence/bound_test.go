package evidence_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"io"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/simulator"

	"github.com/holdfast-iam/holdfast/tpm/evidence"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// A policyKey signs after its policy was executed.
type policyKey struct {
	*tpmKey
	policy *policy.Policy
}

func (k policyKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	session := tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(tpm transport.TPM, handle tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := k.policy.Execute(ctx, tpm, handle, policy.Inputs{})
		return err
	})
	return k.signWith(session, digest)
}

// A key that is used by policy only is certified with its auth value, without
// its policy.
func TestPolicyBoundKey(t *testing.T) {
	tpm, err := simulator.OpenSimulator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tpm.Close() })
	checkLeaks(t, tpm)
	sel, err := policy.ParseSelection("16")
	if err != nil {
		t.Fatal(err)
	}
	values, err := policy.Read(ctx, tpm, sel)
	if err != nil {
		t.Fatal(err)
	}
	step, err := policy.NewPCR(tpm2.TPMAlgSHA256, sel, values)
	if err != nil {
		t.Fatal(err)
	}
	p := &policy.Policy{Hash: tpm2.TPMAlgSHA256, Steps: []policy.Step{step}}
	digest, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	a := signing()
	a.UserWithAuth = false
	bound := template(a)
	bound.AuthPolicy = tpm2.TPM2BDigest{Buffer: digest}
	key := newKeyOf(t, tpm, bound, "sesame")
	defer key.unload()
	csr := request(t, policyKey{key, p})
	if _, err := key.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); err == nil {
		t.Fatal("the key signs without its policy")
	}
	root, cert := ekCertificate(t, tpm)
	b, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{EKCertificate: cert})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	r, err := evidence.Verify(b, csr, evidence.VerifyOptions{EKRoots: roots})
	if err != nil {
		t.Fatal(err)
	}
	// The CA sees what binds the key.
	if err := p.Check(r.Public.AuthPolicy.Buffer); err != nil || r.Public.ObjectAttributes.UserWithAuth {
		t.Errorf("policy %x, %v", r.Public.AuthPolicy.Buffer, err)
	}
}
