package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// approvedPCRs takes, of the entries that the approver signed, the one for the
// present PCR values.
func (r *run) approvedPCRs(s Authorize) error {
	pub, err := tpm2.Pub(s.Public)
	if err != nil {
		return fmt.Errorf("%w: the approver's key: %v", ErrUnsupported, err)
	}
	fp, err := Fingerprint(pub)
	if err != nil {
		return err
	}
	signed, err := r.signedPCRs()
	if err != nil {
		return err
	}
	entries := signed.by(fp)
	if len(entries) == 0 {
		where := "no file of signed PCR policies was given, and one is wanted"
		if signed != nil {
			where = signed.name() + " has none"
		}
		return signer.WithHint(&notApproved{fmt.Errorf("%s signed by %s", where, s.keyID())},
			"name the file of signed PCR policies that its maker signed with the key this one is bound to")
	}
	all, now, err := r.present(entries)
	if err != nil {
		return err
	}
	var bad error
	for _, e := range entries {
		if now[e.Selection[0].Hash] == nil {
			continue // the TPM has no such bank
		}
		step, err := NewPCR(r.hash, e.Selection, now)
		if err != nil {
			return err
		}
		digest, err := (&Policy{Hash: r.hash, Steps: []Step{step}}).Digest()
		if err != nil {
			return err
		}
		if string(digest) != string(e.Policy) {
			continue
		}
		if bad != nil {
			if err := r.restart(); err != nil {
				return err
			}
		}
		if err := r.approvedBy(s, step, e.Signature); !errors.Is(err, ErrBadSignature) {
			return err
		} else if bad == nil {
			bad = err
		}
	}
	if bad != nil {
		return bad
	}
	moved := ""
	if r.in.Expected != nil {
		for _, c := range r.in.Expected.Values.Compare(now, all) {
			moved += "; " + c.String()
		}
	}
	return signer.WithHint(&notApproved{fmt.Errorf("%s has %d signed by %s, for other values of %s%s",
		signed.name(), len(entries), s.keyID(), all, moved)},
		"have a policy signed for the present PCR values, if the change is yours; if not, find out what booted")
}

// present reads the PCRs that entries are about, but for banks that the TPM
// lacks: systemd-measure signs for four banks and few TPMs have them all.
func (r *run) present(entries []SignedEntry) (Selection, Values, error) {
	var all Selection
	for _, e := range entries {
		all = union(all, e.Selection)
	}
	now := Values{}
	var lacks error
	for _, bank := range all {
		v, err := Read(r.ctx, r.tpm, Selection{bank})
		switch {
		case errors.Is(err, errNoBank):
			lacks = err
		case err != nil:
			return nil, nil, err
		default:
			now[bank.Hash] = v[bank.Hash]
		}
	}
	if len(now) == 0 {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoSignedPolicy, lacks)
	}
	return all, now, nil
}

// approvedBy executes a PCR step and has the TPM check that it was approved.
func (r *run) approvedBy(s Authorize, step PCR, signature []byte) error {
	sig, err := tpmSignature(s.Public, signature)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	if err := r.pcr(step); err != nil {
		return err
	}
	return r.authorize(s, sig)
}

// signedPCRs fetches the signed policies, nil if there are none to fetch.
func (r *run) signedPCRs() (*SignedPCRs, error) {
	if r.in.Signed == nil {
		return nil, nil
	}
	signed, err := r.in.Signed(r.ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &notApproved{err}
	}
	return signed, err
}

// authorize has the TPM check the signature over the policy executed so far,
// and executes TPM2_PolicyAuthorize.
func (r *run) authorize(s Authorize, sig *tpm2.TPMTSignature) error {
	got, err := tpm2.PolicyGetDigest{PolicySession: r.session}.Execute(r.tpm)
	if err != nil {
		return fmt.Errorf("TPM2_PolicyGetDigest: %w", err)
	}
	approved := got.PolicyDigest.Buffer
	name, err := s.Name()
	if err != nil {
		return err
	}
	alg, err := s.Public.NameAlg.Hash()
	if err != nil {
		return fmt.Errorf("%w: the approver's key: %v", ErrUnsupported, err)
	}
	h := alg.New()
	h.Write(approved)
	h.Write(s.Ref)
	ticket, err := r.verify(s.Public, h.Sum(nil), sig)
	if err != nil {
		return fmt.Errorf("%v: %w", s, err)
	}
	_, err = tpm2.PolicyAuthorize{
		PolicySession:  r.session,
		ApprovedPolicy: tpm2.TPM2BDigest{Buffer: approved},
		PolicyRef:      tpm2.TPM2BDigest{Buffer: s.Ref},
		KeySign:        tpm2.TPM2BName{Buffer: name},
		CheckTicket:    *ticket,
	}.Execute(r.tpm)
	return named(s, err)
}

// verify loads the public key for as long as it takes. It is loaded into the
// owner hierarchy, or the endorsement's where that is switched off, for the
// null hierarchy gives no ticket.
func (r *run) verify(pub tpm2.TPMTPublic, digest []byte, sig *tpm2.TPMTSignature) (_ *tpm2.TPMTTKVerified, err error) {
	load := tpm2.LoadExternal{InPublic: tpm2.New2B(pub), Hierarchy: tpm2.TPMRHOwner}
	key, err := load.Execute(r.tpm)
	if errors.Is(err, tpm2.TPMRCHierarchy) {
		load.Hierarchy = tpm2.TPMRHEndorsement
		key, err = load.Execute(r.tpm)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_LoadExternal: %w", err)
	}
	defer func() {
		if _, e := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(r.tpm); e != nil && err == nil {
			err = fmt.Errorf("TPM2_FlushContext: %w", e)
		}
	}()
	rsp, err := tpm2.VerifySignature{
		KeyHandle: tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		Digest:    tpm2.TPM2BDigest{Buffer: digest},
		Signature: *sig,
	}.Execute(r.tpm)
	if errors.Is(err, tpm2.TPMRCSignature) {
		return nil, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_VerifySignature: %w", err)
	}
	return &rsp.Validation, nil
}

// union adds b's PCRs to a's.
func union(a, b Selection) Selection {
	out := slices.Clone(a)
	for _, bank := range b {
		i := slices.IndexFunc(out, func(o Bank) bool { return o.Hash == bank.Hash })
		if i < 0 {
			out = append(out, Bank{bank.Hash, slices.Clone(bank.PCRs)})
			continue
		}
		pcrs := slices.Concat(out[i].PCRs, bank.PCRs)
		slices.Sort(pcrs)
		out[i].PCRs = slices.Compact(pcrs)
	}
	return out
}
