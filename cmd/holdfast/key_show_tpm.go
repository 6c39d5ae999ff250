package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// A tpmKeyState is what a key in a TPM is and how it stands.
type tpmKeyState struct {
	Device   string `json:"device,omitempty"`
	Form     string `json:"form"` // "loadable", "importable" or "persistent"
	Handle   string `json:"handle,omitempty"`
	Parent   string `json:"parent,omitempty"`
	Password string `json:"password"` // "none", "wanted", "unknown" or "unused"

	Signs               bool `json:"signs"` // what a program wants signed
	Restricted          bool `json:"restricted"`
	FixedTPM            bool `json:"fixedTPM"`
	FixedParent         bool `json:"fixedParent"`
	SensitiveDataOrigin bool `json:"sensitiveDataOrigin"`
	UserWithAuth        bool `json:"userWithAuth"`
	NoDA                bool `json:"noDA"`

	// Reached: the TPM answered. The rest is unknown if it did not.
	Reached bool   `json:"reached"`
	Error   string `json:"error,omitempty"` // why it was not reached

	// Loads: the TPM takes the key. Nil if that was not tried.
	Loads     *bool  `json:"loads,omitempty"`
	LoadError string `json:"loadError,omitempty"`

	Lockout *lockoutState `json:"lockout,omitempty"`
	Policy  *policyState  `json:"policy,omitempty"`
}

type lockoutState struct {
	Failed          int  `json:"failed"`
	Max             int  `json:"max"`
	IntervalSeconds int  `json:"intervalSeconds"` // after which one is forgotten
	Locked          bool `json:"locked"`
}

func newLockoutState(l tpm.Lockout) *lockoutState {
	return &lockoutState{Failed: l.Failed, Max: l.Max, IntervalSeconds: int(l.Interval.Seconds()), Locked: l.Locked}
}

// fill takes what the public area says.
func (s *tpmKeyState) fill(p *tpm2.TPMTPublic) {
	a := p.ObjectAttributes
	s.FixedTPM, s.FixedParent, s.SensitiveDataOrigin = a.FixedTPM, a.FixedParent, a.SensitiveDataOrigin
	s.UserWithAuth, s.NoDA = a.UserWithAuth, a.NoDA
	s.Restricted, s.Signs = a.Restricted, a.SignEncrypt && !a.Restricted
}

func (s *tpmKeyState) canLeave() *bool {
	can := !s.FixedTPM || !s.FixedParent || !s.SensitiveDataOrigin
	return &can
}

// describeTPMFile describes the key of a key file, as far as that goes without
// its TPM.
func (r *keyReport) describeTPMFile(ctx context.Context, a *app, ref signer.Reference, file *tpm.KeyFile, f *identityFlags) error {
	s := &tpmKeyState{Form: "loadable", Parent: parentName(file)}
	if file.Importable {
		s.Form = "importable"
	}
	s.fill(&file.Public)
	r.LivesIn, r.TPM, r.CanLeave, r.public = "tpm", s, s.canLeave(), file.PublicKey()
	p, perr := parsedPolicy(file)
	switch {
	case file.EmptyAuth != nil && *file.EmptyAuth:
		s.Password = "none"
	case p != nil && !p.NeedsAuth() && perr == nil:
		s.Password = "unused"
	case file.EmptyAuth == nil:
		s.Password = "unknown"
	default:
		s.Password = "wanted"
	}
	if file.Policy != nil || len(file.Public.AuthPolicy.Buffer) > 0 {
		s.Policy = &policyState{Digest: hex.EncodeToString(file.Public.AuthPolicy.Buffer)}
	}
	switch {
	case perr != nil:
		s.Policy.Error = perr.Error()
	case p != nil:
		snapshot, err := policy.ReadSnapshot(ref.Value)
		if err != nil {
			a.say.Warn(err.Error()) // it is for explanations only
		}
		s.Policy.policy, s.Policy.snapshot = p, snapshot
		s.Policy.describe()
	case s.Policy != nil && !s.UserWithAuth:
		s.Policy.Error = "the key file does not say what it is: the key cannot be used with it"
	}
	device, err := a.openTPM(ctx, f)
	if err == nil {
		s.Device = device.String()
		err = s.ask(ctx, device, f)
	}
	if err == nil {
		s.probe(ctx, a, device, file, f)
	} else {
		s.Error = term.OneLine(err)
	}
	r.Breaks = s.breaks()
	return ctx.Err()
}

func parsedPolicy(file *tpm.KeyFile) (*policy.Policy, error) {
	if file.Policy == nil {
		return nil, nil
	}
	p, err := policy.Parse(file.Public.NameAlg, file.Policy, file.AuthPolicy)
	if err != nil {
		return nil, err
	}
	return p, p.Check(file.Public.AuthPolicy.Buffer)
}

func parentName(file *tpm.KeyFile) string {
	kind := "ECC"
	if file.RSAParent {
		kind = "RSA"
	}
	switch file.Parent {
	case tpm2.TPMRHOwner:
		return "the owner hierarchy's " + kind + " storage key"
	case tpm2.TPMRHEndorsement:
		return "the endorsement hierarchy's " + kind + " storage key"
	case tpm2.TPMRHPlatform:
		return "the platform hierarchy's " + kind + " storage key"
	case tpm2.TPMRHNull:
		return "the null hierarchy's " + kind + " storage key"
	}
	return handleRef(file.Parent)
}

// persistentKey reads the public area of a persistent key.
func (a *app) persistentKey(ctx context.Context, ref signer.Reference, f *identityFlags) (public *tpm2.TPMTPublic, h tpm2.TPMHandle, err error) {
	if h, err = tpm.ParseHandle(ref.Value); err != nil {
		return nil, 0, &classed{err, errUsage}
	}
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	err = device.Do(ctx, func(t transport.TPM) error {
		rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(t)
		if errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCValue) {
			return signer.WithHint(fmt.Errorf("%s: %w in the TPM", handleRef(h), signer.ErrKeyNotFound), "list what it has: holdfast list --tpm")
		}
		if err == nil {
			public, err = rsp.OutPublic.Contents()
		}
		return err
	})
	return public, h, err
}

// describeHandle describes a persistent key, whatever it is for.
func (r *keyReport) describeHandle(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) error {
	public, h, err := a.persistentKey(ctx, ref, f)
	if err != nil {
		return err
	}
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return err
	}
	s := &tpmKeyState{Form: "persistent", Handle: fmt.Sprintf("%#x", uint32(h)), Password: "unknown", Device: device.String()}
	s.fill(public)
	r.LivesIn, r.TPM, r.CanLeave = "tpm", s, s.canLeave()
	if r.public, err = tpm2.Pub(*public); err != nil {
		return fmt.Errorf("%s: %w: %v", ref, signer.ErrUnsupportedKey, err)
	}
	if len(public.AuthPolicy.Buffer) > 0 {
		s.Policy = &policyState{Digest: hex.EncodeToString(public.AuthPolicy.Buffer), Error: "the TPM keeps its digest only: what it is cannot be told"}
	}
	if err := s.ask(ctx, device, f); err != nil {
		return err
	}
	r.Breaks = s.breaks()
	return nil
}

// ask has the TPM say how its lock-out and the key's policy stand.
func (s *tpmKeyState) ask(ctx context.Context, d *tpm.Device, f *identityFlags) error {
	l, err := d.Lockout(ctx)
	if err != nil {
		return err
	}
	s.Reached = true
	s.Lockout = newLockoutState(l)
	if s.Policy == nil || s.Policy.policy == nil {
		return nil
	}
	if err := s.Policy.check(ctx, d, f.signedPCRs); err != nil {
		s.Policy.Why = err.Error()
	}
	return ctx.Err()
}

// errNotAsked: a password would have been needed.
var errNotAsked = errors.New("its password is not asked for here")

// probe tries whether the TPM loads the key.
func (s *tpmKeyState) probe(ctx context.Context, a *app, d *tpm.Device, file *tpm.KeyFile, f *identityFlags) {
	o := f.tpmOptions(a)
	o.Auth = func(context.Context, string) (signer.Secret, error) { return signer.Secret{}, errNotAsked }
	key, err := tpm.OpenKey(ctx, d, file, o)
	if err == nil {
		defer key.Close()
		err = key.Probe(ctx)
	}
	loads := err == nil
	switch {
	case loads:
		s.Loads = &loads
	case errors.Is(err, signer.ErrPINRequired), errors.Is(err, signer.ErrPINFinalTry), errors.Is(err, signer.ErrPINLocked):
		s.LoadError = term.OneLine(err) // it may still be right
	default:
		s.Loads, s.LoadError = &loads, term.OneLine(err)
	}
}

// breaks says what would end the key, or keep it from signing.
func (s *tpmKeyState) breaks() []string {
	var all []string
	switch s.Form {
	case "persistent":
		all = append(all, "the TPM is cleared (tpm2_clear, firmware set-up), or the key evicted from its handle")
	case "loadable":
		all = append(all, "the TPM is cleared (tpm2_clear, firmware set-up), or the key file is lost: no other TPM can use it")
	default:
		all = append(all, "the TPM is cleared (tpm2_clear, firmware set-up), or the key file is lost")
	}
	if !s.FixedTPM || !s.FixedParent || !s.SensitiveDataOrigin {
		all = append(all, "a copy of it exists, or can be made, outside this TPM")
	}
	if !s.NoDA && s.Password != "none" && s.Lockout != nil {
		all = append(all, fmt.Sprintf("%d wrong passwords, for this key and all others under the same protection, lock it for a while", s.Lockout.Max))
	}
	if s.Policy != nil && s.Policy.policy != nil {
		all = append(all, s.Policy.breaks()...)
	}
	return all
}
