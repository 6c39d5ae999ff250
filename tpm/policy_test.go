package tpm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// boundTo makes a key that is bound to PCR 16, which anyone may extend, and to
// more.
func boundTo(t *testing.T, d *tpm.Device, opts tpm.CreateOptions, more ...policy.Step) *tpm.KeyFile {
	t.Helper()
	sel, err := policy.ParseSelection("sha256:16")
	if err != nil {
		t.Fatal(err)
	}
	p := &policy.Policy{Hash: tpm2.TPMAlgSHA256}
	err = d.Do(testContext(t), func(tp transport.TPM) error {
		v, err := policy.Read(testContext(t), tp, sel)
		if err != nil {
			return err
		}
		step, err := policy.NewPCR(p.Hash, sel, v)
		p.Steps = append([]policy.Step{step}, more...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if opts.PolicyDigest, err = p.Digest(); err != nil {
		t.Fatal(err)
	}
	if opts.Policy, opts.AuthPolicy, err = p.Marshal(); err != nil {
		t.Fatal(err)
	}
	return create(t, d, opts)
}

func TestPolicies(t *testing.T) {
	s, d := start(t)
	plain := boundTo(t, d, tpm.CreateOptions{})
	locked := boundTo(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte("1234")), DA: true, Persistent: 0x81000070}, policy.AuthValue{})
	inBoth := boundTo(t, d, tpm.CreateOptions{}, policy.Secret{Object: tpm2.TPMRHOwner, Name: tpm2.HandleName(tpm2.TPMRHOwner).Buffer})

	keys := map[string]*tpm.Key{
		"PCR":            openKey(t, d, plain, tpm.Options{}),
		"PCR + password": openKey(t, d, locked, tpm.Options{Auth: password("1234", nil)}),
		"PCR + owner":    openKey(t, d, inBoth, tpm.Options{}),
	}
	p, err := policy.Parse(tpm2.TPMAlgSHA256, locked.Policy, locked.AuthPolicy)
	if err != nil {
		t.Fatal(err)
	}
	keys["persistent"] = openHandle(t, d, "handle:81000070", tpm.Options{Auth: password("1234", nil), Policy: p})
	for range 2 {
		for name, k := range keys {
			t.Run(name, func(t *testing.T) { checkSigns(t, k) })
		}
	}
	for range 3 {
		if err := sign(t, openKey(t, d, locked, tpm.Options{Auth: password("0000", nil)})); !errors.Is(err, signer.ErrPINIncorrect) {
			t.Errorf("a wrong PIN: %v", err)
		}
	}
	if l := lockout(t, d); l.Failed != 1 {
		t.Errorf("%d tries were burnt", l.Failed)
	}
	if _, err := tpm.OpenHandle(testContext(t), d, "handle:81000070", tpm.Options{}); !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "policy") {
		t.Errorf("a policy that is not at hand: %v", err)
	}

	s.Run("tpm2_pcrextend", "16:sha256="+strings.Repeat("11", 32))
	for name, k := range keys {
		for range 5 { // more often than there are sessions
			if err := sign(t, k); !errors.Is(err, policy.ErrPCRMismatch) {
				t.Errorf("%s, after a PCR moved: %v", name, err)
			}
		}
	}
	s.Run("tpm2_pcrreset", "16")
	for name, k := range keys {
		if err := sign(t, k); err != nil {
			t.Errorf("%s, after the PCR is as it was: %v", name, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.CheckEmpty()
}

// A PCR is extended between the policy and the key's use.
func TestPCRChanged(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	k := openKey(t, d, boundTo(t, d, tpm.CreateOptions{}), tpm.Options{})
	n := 0
	p.Fault(func(code uint32, _ []byte) (uint32, bool) {
		if tpm2.TPMCC(code) != tpm2.TPMCCSign {
			return 0, false
		}
		n++
		return uint32(tpm2.TPMRCPCRChanged), n < 3
	})
	if err := sign(t, k); err != nil || n != 3 {
		t.Errorf("%v, after %d tries", err, n)
	}
	p.Commands()
	for range 10 {
		if err := sign(t, k); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(p.Commands()); got[tpm2.TPMCCStartAuthSession] != 0 || len(got) != 2 {
		t.Errorf("commands for 10 signatures: %v", got)
	}
}

func TestPolicyCapture(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	const pin = "12345678"
	f := boundTo(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(pin)), DA: true}, policy.AuthValue{Password: true})
	checkSigns(t, openKey(t, d, f, tpm.Options{Auth: password(pin, nil)}))
	if strings.Contains(string(p.Captured()), pin) {
		t.Error("the PIN passed the wire")
	}
}
