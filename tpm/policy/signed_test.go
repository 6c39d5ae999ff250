package policy_test

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

func TestSignedPolicies(t *testing.T) {
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		for name, approver := range approvers(t) {
			t.Run(name, func(t *testing.T) {
				sel := selection(t, "sha256:7,16")
				approve := func() policy.SignedEntry {
					e, err := policy.SignPCRs(rand.Reader, approver, tpm2.TPMAlgSHA256, sel, read(t, tpm, sel))
					if err != nil {
						t.Fatal(err)
					}
					return e
				}
				path := filepath.Join(t.TempDir(), policy.SignedPCRsName)
				save := func(s *policy.SignedPCRs) *policy.SignedPCRs {
					if err := policy.WriteSignedPCRs(path, s); err != nil {
						t.Fatal(err)
					}
					back, err := policy.LoadSignedPCRs("", []string{t.TempDir(), filepath.Dir(path)})
					if err != nil {
						t.Fatal(err)
					}
					return back
				}
				p := roundTrip(t, of(authorizeBy(t, approver), policy.AuthValue{}))
				k := newKey(t, tpm, p, "sesame")
				if err := k.sign(t, p, policy.Inputs{}); !errors.Is(err, policy.ErrNoSignedPolicy) || signer.Hint(err) == "" {
					t.Errorf("without signed policies: %v", err)
				}
				signed := &policy.SignedPCRs{}
				signed.Add(approve())
				signed = save(signed)
				in := policy.Inputs{Signed: always(signed), Expected: &policy.Snapshot{Values: read(t, tpm, sel)}}
				if err := k.sign(t, p, in); err != nil {
					t.Fatal(err)
				}
				wrong := *k
				wrong.auth = []byte("mellon")
				if err := wrong.sign(t, p, in); !errors.Is(err, tpm2.TPMRCBadAuth) {
					t.Errorf("a wrong password: %v", err)
				}

				extend(t, tpm, 16, "an update")
				err := k.sign(t, p, in)
				if !errors.Is(err, policy.ErrNoSignedPolicy) || !strings.Contains(err.Error(), "PCR 16 (debug) changed") || strings.Contains(err.Error(), "PCR 7") {
					t.Errorf("after an update: %v", err)
				}
				signed.Add(approve())
				both := save(signed)
				in.Signed = always(both)
				if len(both.Entries) != 2 {
					t.Errorf("%d entries", len(both.Entries))
				}
				if err := k.sign(t, p, in); err != nil {
					t.Errorf("with a policy signed for the new state: %v", err)
				}

				// Of another approver, and of this one with a bad signature.
				for _, other := range approvers(t) {
					e, err := policy.SignPCRs(rand.Reader, other, tpm2.TPMAlgSHA256, sel, read(t, tpm, sel))
					if err != nil {
						t.Fatal(err)
					}
					in.Signed = always(&policy.SignedPCRs{Entries: []policy.SignedEntry{e}})
					if err := k.sign(t, p, in); !errors.Is(err, policy.ErrNoSignedPolicy) {
						t.Errorf("signed by another: %v", err)
					}
				}
				bad := approve()
				bad.Signature[len(bad.Signature)-1] ^= 1
				in.Signed = always(&policy.SignedPCRs{Entries: []policy.SignedEntry{bad}})
				if err := k.sign(t, p, in); !errors.Is(err, policy.ErrBadSignature) {
					t.Errorf("a bad signature: %v", err)
				}
			})
		}
	})
}

// The key file may hold signed policies itself, each with a reference.
func TestSignedAlternatives(t *testing.T) {
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		for name, approver := range approvers(t) {
			t.Run(name, func(t *testing.T) {
				by := authorizeBy(t, approver)
				by.Ref = []byte("a reference")
				p := of(by)
				add := func(name string, steps ...policy.Step) {
					a, err := policy.Approve(rand.Reader, approver, p.Hash, by, name, steps)
					if err != nil {
						t.Fatal(err)
					}
					p.Alternatives = append([]policy.Alternative{a}, p.Alternatives...)
					p = roundTrip(t, p)
				}
				k := newKey(t, tpm, p, "")
				add("first", bound(t, tpm, "16"))
				if err := k.sign(t, p, policy.Inputs{}); err != nil {
					t.Error(err)
				}
				extend(t, tpm, 16, "an update")
				if err := k.sign(t, p, policy.Inputs{}); !errors.Is(err, policy.ErrNoSignedPolicy) || !strings.Contains(err.Error(), `"first"`) {
					t.Errorf("after an update: %v", err)
				}
				add("second", bound(t, tpm, "16"))
				if err := k.sign(t, p, policy.Inputs{}); err != nil {
					t.Error(err)
				}
				extend(t, tpm, 16, "another update")
				add("third", bound(t, tpm, "16,23"), policy.CommandCode{Code: tpm2.TPMCCSign})
				p.Alternatives[0], p.Alternatives[2] = p.Alternatives[2], p.Alternatives[0]
				if err := k.sign(t, p, policy.Inputs{}); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// Policies of a key whose name algorithm is SHA-384, over PCRs of other banks.
func TestOtherHash(t *testing.T) {
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		sel := selection(t, "sha1:16+sha256:0,16")
		step, err := policy.NewPCR(tpm2.TPMAlgSHA384, sel, read(t, tpm, sel))
		if err != nil {
			t.Fatal(err)
		}
		p := roundTrip(t, &policy.Policy{Hash: tpm2.TPMAlgSHA384, Steps: []policy.Step{step, policy.AuthValue{}}})
		if err := newKey(t, tpm, p, "sesame").sign(t, p, policy.Inputs{}); err != nil {
			t.Error(err)
		}
		for name, approver := range approvers(t) {
			p := roundTrip(t, &policy.Policy{Hash: tpm2.TPMAlgSHA384, Steps: []policy.Step{authorizeBy(t, approver)}})
			sel := selection(t, "sha256:16")
			e, err := policy.SignPCRs(rand.Reader, approver, p.Hash, sel, read(t, tpm, sel))
			if err != nil {
				t.Fatal(err)
			}
			if err := newKey(t, tpm, p, "").sign(t, p, policy.Inputs{Signed: always(&policy.SignedPCRs{Entries: []policy.SignedEntry{e}})}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		both := selection(t, "sha1:16+sha256:16")
		if _, err := policy.SignPCRs(rand.Reader, approvers(t)["EC"], p.Hash, both, read(t, tpm, both)); !errors.Is(err, policy.ErrUnsupported) {
			t.Errorf("signing two banks at once: %v", err)
		}
	})
}

// A signed policy or, where there is none for the present state, a password;
// and a PCR that is extended while the policy is in use (the TPM does not
// notice that of PCRs 16 and 21 to 23).
func TestCombined(t *testing.T) {
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		approver := approvers(t)["RSA"]
		p, err := policy.Either(of(authorizeBy(t, approver)), of(policy.AuthValue{}))
		if err != nil {
			t.Fatal(err)
		}
		p.Alternatives[0].Name, p.Alternatives[1].Name = "boot", "recovery"
		p = roundTrip(t, p)
		k := newKey(t, tpm, p, "sesame")
		sel := selection(t, "7")
		e, err := policy.SignPCRs(rand.Reader, approver, p.Hash, sel, read(t, tpm, sel))
		if err != nil {
			t.Fatal(err)
		}
		in := policy.Inputs{Signed: always(&policy.SignedPCRs{Entries: []policy.SignedEntry{e}})}
		wrong := *k
		wrong.auth = []byte("mellon")
		if err := wrong.sign(t, p, in); err != nil {
			t.Errorf("in a state that is approved, the password matters: %v", err)
		}
		k.between = func() { extend(t, tpm, 7, "meanwhile") }
		if err := k.sign(t, p, in); !errors.Is(err, tpm2.TPMRCPCRChanged) {
			t.Errorf("a PCR changed meanwhile: %v", err)
		}
		k.between = nil
		if err := k.sign(t, p, in); err != nil {
			t.Errorf("by password: %v", err)
		}
		if err := wrong.sign(t, p, in); !errors.Is(err, tpm2.TPMRCBadAuth) {
			t.Errorf("by a wrong password: %v", err)
		}
	})
}
