package policy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
)

// Inputs are what a policy may want besides the TPM. The zero value serves one
// of PCRs alone.
type Inputs struct {
	// Secret returns a session that proves the auth value of a [Secret] step's
	// object: salted, if the value is worth anything. The session remains the
	// caller's. It is asked once for each such step. If it is nil, owner and
	// endorsement hierarchy are tried with an empty auth value, which they
	// usually have and which costs no lock-out try; other objects are refused.
	Secret func(context.Context, Secret) (tpm2.Session, error)

	// Signed fetches the signed PCR policies for an [Authorize] step, anew at
	// each execution: they are what changes in a key's life. An error that
	// wraps fs.ErrNotExist means that there are none.
	Signed func(context.Context) (*SignedPCRs, error)

	// Expected, if not nil, lets errors say which PCR moved.
	Expected *Snapshot
}

// An Outcome says how a policy was satisfied.
type Outcome struct {
	// AuthValue is set if the command that the session authorizes must prove
	// the key's auth value. If it is not set, it must not: the TPM refuses
	// that. [Policy.NeedsAuth] knows only that some way leads over it.
	AuthValue bool

	// Alternative is the name of the one that was taken, if it has a name.
	Alternative string
}

// Execute runs p on a policy session, which must be fresh (or restarted), of
// the hash p.Hash and not a trial one. The session remains the caller's, after
// an error as well; whatever else is loaded on the way is flushed before
// Execute returns.
//
// If a PCR is extended between Execute and the session's use, the TPM answers
// TPM_RC_PCR_CHANGED; the caller restarts the session and executes p again.
func (p *Policy) Execute(ctx context.Context, tpm transport.TPM, session tpm2.TPMHandle, in Inputs) (Outcome, error) {
	r := &run{ctx: ctx, tpm: tpm, session: session, hash: p.Hash, in: in}
	if err := r.steps(p.Steps, p.Alternatives); err != nil {
		return Outcome{}, fmt.Errorf("TPM policy: %w", err)
	}
	return r.outcome, nil
}

// Explain reads the PCRs and returns a [*PCRError] if those that p is bound to
// moved. Signed policies and branches are not looked at.
func (p *Policy) Explain(ctx context.Context, tpm transport.TPM, expected *Snapshot) error {
	r := &run{ctx: ctx, tpm: tpm, hash: p.Hash, in: Inputs{Expected: expected}}
	for _, s := range p.Steps {
		if s, ok := s.(PCR); ok {
			if err := r.explain(s); err != nil {
				return err
			}
		}
	}
	return nil
}

type run struct {
	ctx     context.Context
	tpm     transport.TPM
	session tpm2.TPMHandle
	hash    tpm2.TPMIAlgHash
	in      Inputs
	outcome Outcome
}

func (r *run) steps(steps []Step, alternatives []Alternative) error {
	for i, s := range steps {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		var err error
		switch s := s.(type) {
		case Authorize:
			switch {
			case s.Signature != nil:
				err = r.authorize(s, s.Signature)
			case i == 0:
				err = r.approved(s, alternatives)
			default:
				err = fmt.Errorf("%w: a signed policy that is wanted after other steps", ErrUnsupported)
			}
		case Or:
			if i == 0 {
				err = r.branch(s, alternatives)
			} else {
				err = r.or(s)
			}
		default:
			err = r.step(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) step(s Step) error {
	switch s := s.(type) {
	case PCR:
		return r.pcr(s)
	case AuthValue:
		r.outcome.AuthValue = true
		_, err := tpm2.PolicyAuthValue{PolicySession: r.session}.Execute(r.tpm)
		return named(s, err)
	case Secret:
		return r.secret(s)
	case CommandCode:
		_, err := tpm2.PolicyCommandCode{PolicySession: r.session, Code: s.Code}.Execute(r.tpm)
		return named(s, err)
	}
	return fmt.Errorf("%w: %v", ErrUnsupported, s)
}

func (r *run) pcr(s PCR) error {
	_, err := tpm2.PolicyPCR{PolicySession: r.session, PcrDigest: tpm2.TPM2BDigest{Buffer: s.Digest}, Pcrs: s.Selection.TPM()}.Execute(r.tpm)
	if !errors.Is(err, tpm2.TPMRCValue) {
		return named(s, err)
	}
	if why := r.explain(s); why != nil {
		return why
	}
	return named(s, err)
}

// explain returns nil if the PCRs have the values that s wants.
func (r *run) explain(s PCR) error {
	now, err := Read(r.ctx, r.tpm, s.Selection)
	if err != nil {
		return err
	}
	d, err := now.Digest(r.hash, s.Selection)
	if err != nil {
		return err
	}
	if string(d) == string(s.Digest) {
		return nil
	}
	e := &PCRError{Selection: s.Selection}
	if r.in.Expected.fits(r.hash, s) {
		e.Changes = r.in.Expected.Values.Compare(now, s.Selection)
	}
	return e
}

func (r *run) secret(s Secret) error {
	if s.Object == 0 {
		return fmt.Errorf("%w: the password of an object that the key file gives no handle of", ErrUnsupported)
	}
	var auth tpm2.Session
	switch {
	case r.in.Secret != nil:
		var err error
		if auth, err = r.in.Secret(r.ctx, s); err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	case s.Object == tpm2.TPMRHOwner || s.Object == tpm2.TPMRHEndorsement:
		auth = tpm2.PasswordAuth(nil)
	default:
		return fmt.Errorf("%v: %w", s, signer.ErrPINRequired)
	}
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: s.Object, Name: tpm2.TPM2BName{Buffer: s.Name}, Auth: auth},
		PolicySession: r.session,
		PolicyRef:     tpm2.TPM2BNonce{Buffer: s.Ref},
	}.Execute(r.tpm)
	if errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth) {
		return fmt.Errorf("%v: %w: %w", s, signer.ErrPINIncorrect, err)
	}
	if errors.Is(err, tpm2.TPMRCLockout) {
		return fmt.Errorf("%v: %w: %w", s, signer.ErrPINLocked, err)
	}
	return named(s, err)
}

func (r *run) or(s Or) error {
	var list tpm2.TPMLDigest
	for _, d := range s.Digests {
		list.Digests = append(list.Digests, tpm2.TPM2BDigest{Buffer: d})
	}
	_, err := tpm2.PolicyOr{PolicySession: r.session, PHashList: list}.Execute(r.tpm)
	return named(s, err)
}

func (r *run) restart() error {
	r.outcome = Outcome{}
	return Restart(r.tpm, r.session)
}

// Restart is TPM2_PolicyRestart, which go-tpm lacks: it makes a policy session as
// it was when it began.
func Restart(tpm transport.TPM, session tpm2.TPMHandle) error {
	cmd := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	cmd = binary.BigEndian.AppendUint32(cmd, 14)
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(tpm2.TPMCCPolicyRestart))
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(session))
	rsp, err := tpm.Send(cmd)
	if err != nil {
		return err
	}
	if len(rsp) < 10 {
		return fmt.Errorf("TPM2_PolicyRestart: an answer of %d bytes", len(rsp))
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:])); rc != tpm2.TPMRCSuccess {
		return fmt.Errorf("TPM2_PolicyRestart: %w", rc)
	}
	return nil
}

func named(s Step, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", commandName(s.Command()), err)
}
