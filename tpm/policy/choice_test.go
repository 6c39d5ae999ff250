package policy_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"testing"

	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// systemd-measure signs for four banks, and few TPMs have them all.
func TestBanksTheTPMLacks(t *testing.T) {
	tpm := startSWTPM(t)
	tpm.Run("tpm2_pcrallocate", "sha1:none+sha256:all+sha384:none+sha512:none")
	tpm.Run("tpm2_shutdown", "-c")
	tpm.Reset()
	tpm.Run("tpm2_startup", "-c")
	approver := approvers(t)["RSA"]
	p := roundTrip(t, of(authorizeBy(t, approver)))
	k := newKey(t, tpm, p, "")
	signed := &policy.SignedPCRs{}
	for _, bank := range []string{"sha1:11", "sha384:11", "sha512:7,11", "sha256:11"} {
		sel := selection(t, bank)
		v := policy.Values{}
		for _, b := range sel {
			h, err := b.Hash.Hash()
			if err != nil {
				t.Fatal(err)
			}
			v[b.Hash] = map[int][]byte{7: make([]byte, h.Size()), 11: make([]byte, h.Size())}
		}
		if bank == "sha256:11" {
			in := policy.Inputs{Signed: always(signed)}
			if err := k.sign(t, p, in); !errors.Is(err, policy.ErrNoSignedPolicy) {
				t.Errorf("for banks that the TPM lacks alone: %v", err)
			}
		}
		e, err := policy.SignPCRs(rand.Reader, approver, p.Hash, sel, v)
		if err != nil {
			t.Fatal(err)
		}
		signed.Add(e)
	}
	if err := k.sign(t, p, policy.Inputs{Signed: always(signed)}); err != nil {
		t.Error(err)
	}
}

// Of several signed policies, those of another approver, and those whose
// signature is wrong, do not stand in the way of the right one.
func TestTheRightOneIsTaken(t *testing.T) {
	tpm := startSWTPM(t)
	approver, other := approvers(t)["RSA"], approvers(t)["EC"]
	by := authorizeBy(t, approver)
	p := of(by)
	k := newKey(t, tpm, p, "")
	approve := func(key string, by policy.Authorize) policy.Alternative {
		signer := approver
		if key == "other" {
			signer = other
		}
		a, err := policy.Approve(rand.Reader, signer, p.Hash, by, key, []policy.Step{bound(t, tpm, "16")})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	ref := by
	ref.Ref = []byte("for other keys")
	p.Alternatives = []policy.Alternative{approve("other", authorizeBy(t, other)), approve("ref", ref)}
	if err := k.sign(t, p, policy.Inputs{}); !errors.Is(err, policy.ErrNoSignedPolicy) {
		t.Errorf("of other approvers alone: %v", err)
	}
	p.Alternatives = append(p.Alternatives, approve("right", by))
	p = roundTrip(t, p)
	if err := k.sign(t, p, policy.Inputs{}); err != nil {
		t.Errorf("alternatives: %v", err)
	}

	p.Alternatives = nil
	sel := selection(t, "16")
	good, err := policy.SignPCRs(rand.Reader, approver, p.Hash, sel, read(t, tpm, sel))
	if err != nil {
		t.Fatal(err)
	}
	bad, err := policy.SignPCRs(rand.Reader, fake{approver.(*rsa.PrivateKey)}, p.Hash, sel, read(t, tpm, sel))
	if err != nil {
		t.Fatal(err)
	}
	short := good
	short.Signature = good.Signature[:20]
	signed := &policy.SignedPCRs{Entries: []policy.SignedEntry{bad, short, good}}
	if err := k.sign(t, p, policy.Inputs{Signed: always(signed)}); err != nil {
		t.Errorf("entries: %v", err)
	}
	signed.Entries = signed.Entries[:2]
	if err := k.sign(t, p, policy.Inputs{Signed: always(signed)}); !errors.Is(err, policy.ErrBadSignature) {
		t.Errorf("bad entries alone: %v", err)
	}
}

// A fake signs something else.
type fake struct{ *rsa.PrivateKey }

func (f fake) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return f.PrivateKey.Sign(random, make([]byte, len(digest)), opts)
}
