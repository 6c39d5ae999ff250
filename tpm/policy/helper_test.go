package policy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os/exec"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/simulator"

	"github.com/holdfast-iam/holdfast/tpm/policy"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// tool returns a program's path, or ends the test with the way to install it.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"", "/lib/systemd/", "/usr/lib/systemd/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	return ""
}

// startSWTPM starts an swtpm, in which nothing may be left.
func startSWTPM(t *testing.T) *tpmtest.TPM {
	t.Helper()
	s := tpmtest.Start(t)
	checkLeaks(t, s)
	return s
}

// onEach runs a test on swtpm and on the simulator.
func onEach(t *testing.T, test func(t *testing.T, tpm transport.TPM)) {
	t.Run("swtpm", func(t *testing.T) { test(t, startSWTPM(t)) })
	t.Run("simulator", func(t *testing.T) {
		tpm, err := simulator.OpenSimulator()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tpm.Close() })
		checkLeaks(t, tpm)
		test(t, tpm)
	})
}

func handles(t *testing.T, tpm transport.TPM, first uint32) []tpm2.TPMHandle {
	t.Helper()
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 32}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	list, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		t.Fatal(err)
	}
	return list.Handle
}

// checkLeaks asserts, when the test ends, that the TPM holds nothing.
func checkLeaks(t *testing.T, tpm transport.TPM) {
	t.Cleanup(func() {
		for what, first := range map[string]uint32{"objects": 0x80000000, "sessions": 0x02000000, "saved sessions": 0x03000000} {
			if left := handles(t, tpm, first); len(left) != 0 {
				t.Errorf("%s left in the TPM: %x", what, left)
			}
		}
	})
}

func flush(t *testing.T, tpm transport.TPM, h tpm2.TPMHandle) {
	t.Helper()
	if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(tpm); err != nil {
		t.Error(err)
	}
}

type key struct {
	tpm  transport.TPM
	pub  tpm2.TPM2BPublic
	priv tpm2.TPM2BPrivate
	auth []byte

	between func() // runs after the policy and before the signature
}

func parent(t *testing.T, tpm transport.TPM) tpm2.NamedHandle {
	t.Helper()
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name}
}

// newKey makes a P-256 key bound to p.
func newKey(t *testing.T, tpm transport.TPM, p *policy.Policy, auth string) *key {
	t.Helper()
	digest, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	srk := parent(t, tpm)
	defer flush(t, tpm, srk.Handle)
	made, err := tpm2.Create{
		ParentHandle: srk,
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(auth)}}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: p.Hash,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, NoDA: true, SignEncrypt: true},
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: digest},
			Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
		}),
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return &key{tpm: tpm, pub: made.OutPublic, priv: made.OutPrivate, auth: []byte(auth)}
}

// sign executes p and signs once.
func (k *key) sign(t *testing.T, p *policy.Policy, in policy.Inputs) error {
	t.Helper()
	srk := parent(t, k.tpm)
	loaded, err := tpm2.Load{ParentHandle: srk, InPrivate: k.priv, InPublic: k.pub}.Execute(k.tpm)
	flush(t, k.tpm, srk.Handle)
	if err != nil {
		t.Fatal(err)
	}
	defer flush(t, k.tpm, loaded.ObjectHandle)
	var session tpm2.Session
	var done func() error
	for auth := p.NeedsAuth(); ; {
		var opts []tpm2.AuthOption
		if auth {
			opts = append(opts, tpm2.Auth(k.auth))
		}
		if session, done, err = tpm2.PolicySession(k.tpm, p.Hash, 16, opts...); err != nil {
			t.Fatal(err)
		}
		how, err := p.Execute(context.Background(), k.tpm, session.Handle(), in)
		if err == nil && how.AuthValue == auth {
			break
		}
		if e := done(); e != nil {
			t.Error(e)
		}
		if err != nil {
			return err
		}
		auth = how.AuthValue
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	if k.between != nil {
		k.between()
	}
	digest := sha256.Sum256([]byte("message"))
	_, err = tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: session},
		Digest:    tpm2.TPM2BDigest{Buffer: digest[:]},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(k.tpm)
	return err
}

func extend(t *testing.T, tpm transport.TPM, pcr int, data string) {
	t.Helper()
	sum := sha256.Sum256([]byte(data))
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: sum[:]}}},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
}

func selection(t testing.TB, s string) policy.Selection {
	t.Helper()
	sel, err := policy.ParseSelection(s)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func read(t *testing.T, tpm transport.TPM, sel policy.Selection) policy.Values {
	t.Helper()
	v, err := policy.Read(context.Background(), tpm, sel)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// bound is a step bound to the present values.
func bound(t *testing.T, tpm transport.TPM, pcrs string) policy.PCR {
	t.Helper()
	sel := selection(t, pcrs)
	step, err := policy.NewPCR(tpm2.TPMAlgSHA256, sel, read(t, tpm, sel))
	if err != nil {
		t.Fatal(err)
	}
	return step
}

func of(steps ...policy.Step) *policy.Policy {
	return &policy.Policy{Hash: tpm2.TPMAlgSHA256, Steps: steps}
}

// roundTrip puts p into a key file's form and takes it out again.
func roundTrip(t testing.TB, p *policy.Policy) *policy.Policy {
	t.Helper()
	a, b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := policy.Parse(p.Hash, a, b)
	if err != nil {
		t.Fatal(err)
	}
	a2, b2, err := got.Marshal()
	if err != nil || !bytes.Equal(a, a2) || !bytes.Equal(b, b2) {
		t.Fatalf("another policy after parsing: %v, %v", got, err)
	}
	return got
}

func always(s *policy.SignedPCRs) func(context.Context) (*policy.SignedPCRs, error) {
	return func(context.Context) (*policy.SignedPCRs, error) { return s, nil }
}
