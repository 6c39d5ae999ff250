package policy_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

var ownerSecret = policy.Secret{Object: tpm2.TPMRHOwner, Name: tpm2.HandleName(tpm2.TPMRHOwner).Buffer, Ref: []byte("ref")}

func approvers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"RSA": r, "EC": e}
}

func authorizeBy(t *testing.T, key crypto.Signer) policy.Authorize {
	t.Helper()
	a, err := policy.AuthorizeBy(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// trial computes a policy's digest on a trial session.
func trial(t *testing.T, tpm transport.TPM, steps []policy.Step) []byte {
	t.Helper()
	session, done, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	h := session.Handle()
	for _, s := range steps {
		if a, ok := s.(policy.Authorize); ok {
			name, err := a.Name()
			if err != nil {
				t.Fatal(err)
			}
			_, err = tpm2.PolicyAuthorize{PolicySession: h, PolicyRef: tpm2.TPM2BDigest{Buffer: a.Ref}, KeySign: tpm2.TPM2BName{Buffer: name},
				CheckTicket: tpm2.TPMTTKVerified{Tag: tpm2.TPMSTVerified, Hierarchy: tpm2.TPMRHNull}}.Execute(tpm)
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		// An Or at the start is one the package would look for branches of.
		if o, ok := s.(policy.Or); ok {
			var list tpm2.TPMLDigest
			for _, d := range o.Digests {
				list.Digests = append(list.Digests, tpm2.TPM2BDigest{Buffer: d})
			}
			if _, err := (tpm2.PolicyOr{PolicySession: h, PHashList: list}).Execute(tpm); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := of(s).Execute(context.Background(), tpm, h, policy.Inputs{}); err != nil {
			t.Fatal(err)
		}
	}
	rsp, err := tpm2.PolicyGetDigest{PolicySession: h}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return rsp.PolicyDigest.Buffer
}

func TestDigestIsTheTPMs(t *testing.T) {
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		extend(t, tpm, 16, "something")
		pcr := bound(t, tpm, "sha256:0,7,11+16")
		for name, approver := range approvers(t) {
			auth := authorizeBy(t, approver)
			withRef := auth
			withRef.Ref = []byte("a reference")
			either, err := policy.Either(of(pcr), of(policy.AuthValue{}))
			if err != nil {
				t.Fatal(err)
			}
			for _, steps := range [][]policy.Step{
				{},
				{pcr},
				{bound(t, tpm, "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12+sha1:7,23")},
				{policy.AuthValue{}},
				{policy.AuthValue{Password: true}},
				{ownerSecret},
				{policy.CommandCode{Code: tpm2.TPMCCSign}},
				{auth},
				{withRef},
				{pcr, policy.AuthValue{}},
				{auth, policy.AuthValue{}},
				{policy.CommandCode{Code: tpm2.TPMCCSign}, auth},
				either.Steps,
				append(either.Steps[:1:1], policy.AuthValue{}),
			} {
				p := roundTrip(t, of(steps...))
				got, err := p.Digest()
				if err != nil {
					t.Fatal(err)
				}
				if want := trial(t, tpm, steps); !bytes.Equal(got, want) {
					t.Errorf("%s: %v: %x, the TPM says %x", name, p, got, want)
				}
				if p.Check(got) != nil || !errors.Is(p.Check(bytes.Repeat([]byte{1}, 32)), policy.ErrPolicyMismatch) {
					t.Errorf("%v: Check is wrong", p)
				}
			}
		}
	})
}

func TestPCRMoves(t *testing.T) {
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		sel := selection(t, "sha256:0,7,16,23")
		was := read(t, tpm, sel)
		file := filepath.Join(t.TempDir(), "device.tss2.pem")
		if err := policy.WriteSnapshot(file, &policy.Snapshot{Values: was}); err != nil {
			t.Fatal(err)
		}
		expected, err := policy.ReadSnapshot(file)
		if err != nil {
			t.Fatal(err)
		}
		alone := of(bound(t, tpm, sel.String()))
		password := of(bound(t, tpm, sel.String()), policy.AuthValue{})
		branches, err := policy.Either(alone, of(policy.AuthValue{}))
		if err != nil {
			t.Fatal(err)
		}
		branches = roundTrip(t, branches)
		secret := of(ownerSecret, bound(t, tpm, "16"))
		keyAlone, keyPassword := newKey(t, tpm, alone, ""), newKey(t, tpm, password, "sesame")
		in := policy.Inputs{Expected: expected}
		if err := keyAlone.sign(t, alone, in); err != nil {
			t.Fatal(err)
		}
		if err := keyPassword.sign(t, password, in); err != nil {
			t.Fatal(err)
		}
		wrong := *keyPassword
		wrong.auth = []byte("mellon")
		if err := wrong.sign(t, password, in); !errors.Is(err, tpm2.TPMRCBadAuth) {
			t.Errorf("a wrong password: %v", err)
		}
		if err := alone.Explain(context.Background(), tpm, expected); err != nil {
			t.Error(err)
		}
		keyBranches, keySecret := newKey(t, tpm, branches, "sesame"), newKey(t, tpm, secret, "")
		if err := keyBranches.sign(t, branches, in); err != nil {
			t.Error(err)
		}
		if err := keySecret.sign(t, secret, in); err != nil {
			t.Error(err)
		}

		extend(t, tpm, 16, "an update")
		for _, err := range []error{
			keyAlone.sign(t, alone, in), keyPassword.sign(t, password, in), alone.Explain(context.Background(), tpm, expected),
		} {
			var moved *policy.PCRError
			if !errors.As(err, &moved) || !errors.Is(err, policy.ErrPCRMismatch) || len(moved.Changes) != 1 || moved.Changes[0].PCR != 16 {
				t.Errorf("after PCR 16 was extended: %v", err)
				continue
			}
			if !strings.Contains(err.Error(), "PCR 16 (debug) changed: was 0000") || signer.Hint(err) == "" || strings.Contains(err.Error(), "PCR 7") {
				t.Errorf("it says %v", err)
			}
		}
		if err := keyAlone.sign(t, alone, policy.Inputs{}); !errors.Is(err, policy.ErrPCRMismatch) || !strings.Contains(err.Error(), sel.String()) {
			t.Errorf("without a snapshot: %v", err)
		}
		stale := &policy.Snapshot{Values: policy.Values{tpm2.TPMAlgSHA256: {0: make([]byte, 32), 7: bytes.Repeat([]byte{1}, 32), 16: make([]byte, 32), 23: make([]byte, 32)}}}
		if err := keyAlone.sign(t, alone, policy.Inputs{Expected: stale}); err == nil || strings.Contains(err.Error(), "PCR 7") {
			t.Errorf("a snapshot of other values is believed: %v", err)
		}
		if err := keyBranches.sign(t, branches, in); err != nil {
			t.Errorf("by the other branch: %v", err)
		}
		if err := keySecret.sign(t, secret, in); !errors.Is(err, policy.ErrPCRMismatch) {
			t.Errorf("a policy of a secret and PCRs: %v", err)
		}
	})
}

func TestSecrets(t *testing.T) {
	endorsement := policy.Secret{Object: tpm2.TPMRHEndorsement, Name: tpm2.HandleName(tpm2.TPMRHEndorsement).Buffer}
	onEach(t, func(t *testing.T, tpm transport.TPM) {
		p := roundTrip(t, of(endorsement))
		k := newKey(t, tpm, p, "")
		if err := k.sign(t, p, policy.Inputs{}); err != nil {
			t.Error(err)
		}
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
			NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("owner")},
		}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.sign(t, p, policy.Inputs{}); !errors.Is(err, signer.ErrPINIncorrect) {
			t.Errorf("with none: %v", err)
		}
		salt, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		defer flush(t, tpm, salt.ObjectHandle)
		pub, err := salt.OutPublic.Contents()
		if err != nil {
			t.Fatal(err)
		}
		for auth, want := range map[string]error{"owner": nil, "wrong": signer.ErrPINIncorrect} {
			in := policy.Inputs{Secret: func(_ context.Context, s policy.Secret) (tpm2.Session, error) {
				if s.Object != tpm2.TPMRHEndorsement {
					t.Errorf("asked for %v", s)
				}
				return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth([]byte(auth)), tpm2.Salted(salt.ObjectHandle, *pub)), nil
			}}
			if err := k.sign(t, p, in); !errors.Is(err, want) {
				t.Errorf("%s: %v", auth, err)
			}
		}
		lockout := policy.Secret{Object: tpm2.TPMRHLockout, Name: tpm2.HandleName(tpm2.TPMRHLockout).Buffer}
		if err := k.sign(t, of(lockout), policy.Inputs{}); !errors.Is(err, signer.ErrPINRequired) {
			t.Errorf("the lock-out hierarchy was tried without being asked: %v", err)
		}
		canceled, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := p.Execute(canceled, tpm, 0, policy.Inputs{}); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}
