package tpm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func TestProbe(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	ctx := testContext(t)
	s.Run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-p", "parent", "-c", s.Dir()+"/parent.ctx")
	s.Run("tpm2_evictcontrol", "-C", "o", "-c", s.Dir()+"/parent.ctx", "0x81000001")
	s.Clear()
	pin := signer.NewSecret([]byte("1234"))
	below := create(t, d, tpm.CreateOptions{Parent: 0x81000001, ParentAuth: password("parent", nil)})
	guarded := create(t, d, tpm.CreateOptions{Auth: pin, DA: true})
	bound := boundTo(t, d, tpm.CreateOptions{Auth: pin, DA: true}, policy.AuthValue{})
	create(t, d, tpm.CreateOptions{Auth: pin, DA: true, Persistent: 0x81000010})
	asked := 0
	ask := tpm.Options{Auth: password("wrong", &asked)}
	p.Commands()

	for name, k := range map[string]*tpm.Key{
		"with a PIN":            openKey(t, d, guarded, ask),
		"with a PIN and policy": openKey(t, d, bound, ask),
		"persistent":            openHandle(t, d, "handle:0x81000010", ask),
		"below a parent":        openKey(t, d, below, tpm.Options{ParentAuth: password("parent", nil)}),
	} {
		if err := k.Probe(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// That parent is under dictionary attack protection.
	if err := openKey(t, d, below, tpm.Options{}).Probe(ctx); !errors.Is(err, signer.ErrPINRequired) {
		t.Errorf("without the parent's password: %v", err)
	}
	if n := count(p.Commands()); n[tpm2.TPMCCSign] != 0 || n[tpm2.TPMCCPolicyPCR] != 0 || asked != 0 {
		t.Errorf("%v, asked %d times", n, asked)
	}
	if l := lockout(t, d); l.Failed != 0 {
		t.Errorf("%d tries were burnt", l.Failed)
	}

	s.Run("tpm2_clear", "-c", "p")
	s.Clear()
	if err := openKey(t, d, guarded, ask).Probe(ctx); !errors.Is(err, tpm2.TPMRCIntegrity) || !strings.Contains(signer.Hint(err), "cleared") {
		t.Errorf("after the TPM was cleared: %v", err)
	}
	k := openKey(t, d, guarded, ask)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.Probe(ctx); err == nil {
		t.Error("a closed key")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.CheckEmpty()
}

// A handle that is taken stays so, and a free one is named.
func TestHandleInUse(t *testing.T) {
	s, d := start(t)
	for _, h := range []tpm2.TPMHandle{0x81000010, 0x81000011, 0x81000013, 0x817fffff} {
		create(t, d, tpm.CreateOptions{Persistent: h})
	}
	for h, hint := range map[tpm2.TPMHandle]string{
		0x81000010: "handle:0x81000012 is free; or remove what is there, which cannot be undone: tpm2_evictcontrol -C o -c 0x81000010",
		0x81000013: "handle:0x81000014 is free",
		0x817fffff: "choose another handle, or remove",
	} {
		_, err := tpm.CreateKey(testContext(t), d, tpm.CreateOptions{Persistent: h})
		if !errors.Is(err, tpm.ErrHandleInUse) || !strings.Contains(signer.Hint(err), hint) {
			t.Errorf("%#x: %v; %s", uint32(h), err, signer.Hint(err))
		}
	}
	if _, err := tpm.CreateKey(testContext(t), d, tpm.CreateOptions{Persistent: 0x81800000}); err == nil || !strings.Contains(err.Error(), "the platform's") {
		t.Errorf("the platform's: %v", err)
	}
	s.CheckEmpty()
}
