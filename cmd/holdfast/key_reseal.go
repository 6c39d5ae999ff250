package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/google/go-tpm/tpm2"
	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/atomicfile"
	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// keptApprovals bounds how many approvals a key file holds: the newest ones. At
// each use of the key they are tried in turn.
const keptApprovals = 8

func (a *app) keyReseal() *cobra.Command {
	var f identityFlags
	var v approvedValues
	var r reseal
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Make a TPM key sign again after an update, or before one",
		Long: `Approves PCR values for one key, in its key file: this machine's present ones, or
those of --pcr-values, for an update that is still to come or on another machine.
The key stays the same, and so do its certificates. The newest ` + fmt.Sprint(keptApprovals) + ` approvals are
kept, so that the update can be taken back; --replace drops the older ones.

The key must have been made with --tpm-public-key. --approver is that key's
private half, which the other flags about passwords and tokens are for; the TPM
key itself is not used.

  holdfast key reseal --private-key device.tss2.pem --approver approver.key
  holdfast key reseal --private-key device.tss2.pem --approver 'pkcs11:token=office;object=approver' --pcr-values values.json

Where the approver is elsewhere, let it make a file that the device takes after
--tpm-pcr-signature: see "key approve".`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.privateKey == "" || r.approver == "":
				return usageError(cmd, errors.New("give the key file with --private-key, and the approver's key with --approver"))
			case !utf8.ValidString(r.name) || len(r.name) > 100 || r.name != term.Clean(r.name):
				return usageError(cmd, errors.New("--name takes up to 100 bytes of plain text"))
			}
			if err := v.check(cmd, &f); err != nil {
				return err
			}
			a.setDebug(f.debug)
			if err := r.open(signer.ParseReference(f.privateKey)); err != nil {
				return identityError(err)
			}
			return r.run(cmd.Context(), a, &f, &v)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.privateKey, "private-key", "", "the key to reseal: a TSS2 key `file`")
	fs.StringVar(&r.approver, "approver", "", "the approver's private `key`: a file, a pkcs11: URI, or a TPM's")
	v.add(fs)
	fs.StringVar(&r.name, "name", "", "`name` of the approval, for people (default: its time)")
	fs.BoolVar(&r.replace, "replace", false, "drop the approvals that the key file has")
	f.addKeyFlags(fs)
	return cmd
}

// A reseal adds an approval to a key file.
type reseal struct {
	approver string
	name     string
	replace  bool

	path   string
	text   []byte
	by     policy.Authorize
	policy *policy.Policy
}

// open reads the key file, and tells whether its policy can be approved anew.
func (r *reseal) open(ref signer.Reference) error {
	if ref.Scheme != signer.SchemeFile {
		return signer.WithHint(fmt.Errorf("%s: %w: only a TSS2 key file has a policy that can be approved anew", ref, signer.ErrUnsupportedKey),
			"create such a key: holdfast key create --tpm --private-key FILE --tpm-public-key FILE")
	}
	r.path = ref.Value
	var err error
	if r.text, err = readSmallFile(r.path); err != nil {
		return err
	}
	file, err := findTPMKey(r.text)
	if err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	if file.Policy == nil {
		return fmt.Errorf("%s: %w: no policy binds it: there is nothing to approve", r.path, signer.ErrUnsupportedKey)
	}
	if r.policy, err = policy.Parse(file.Public.NameAlg, file.Policy, file.AuthPolicy); err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	if err := r.policy.Check(file.Public.AuthPolicy.Buffer); err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	by, ok := r.policy.Steps[0].(policy.Authorize)
	if !ok || by.Signature != nil {
		return signer.WithHint(fmt.Errorf("%s: %w: it is bound for ever to %s; no one can approve anything else, and a TPM changes no key's policy", r.path, signer.ErrUnsupportedKey, r.policy),
			"restore what it is bound to, or create a new key with --tpm-public-key and request a certificate for that")
	}
	r.by = by
	return nil
}

// findTPMKey returns the TPM key in a file's text, PEM or DER.
func findTPMKey(text []byte) (*tpm.KeyFile, error) {
	if !bytes.Contains(text, []byte("-----BEGIN ")) {
		return tpm.ParseKeyFile(text)
	}
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == tpm.PEMType {
			return tpm.ParseKeyFile(pem.EncodeToMemory(b))
		}
	}
	return nil, fmt.Errorf("%w: no TPM's key in it (%s)", signer.ErrKeyNotFound, tpm.PEMType)
}

func (r *reseal) run(ctx context.Context, a *app, f *identityFlags, v *approvedValues) error {
	snapshot, err := policy.ReadSnapshot(r.path)
	if err != nil {
		a.say.Warn(err.Error())
	}
	sel, values, err := v.read(ctx, a, f, r.usual(snapshot))
	if err != nil {
		return identityError(err)
	}
	if bound := common(sel, r.fixed()); len(bound) > 0 {
		a.say.Warn(fmt.Sprintf("PCRs %s are also bound for ever, whatever is approved", bound))
	}
	step, err := policy.NewPCR(r.policy.Hash, sel, values)
	if err != nil {
		return identityError(err)
	}
	key, err := a.openApprover(ctx, r.approver, f)
	if err != nil {
		return err
	}
	defer closeKey(key)
	if err := r.checkApprover(key.Public()); err != nil {
		return identityError(err)
	}
	approval, err := policy.Approve(rand.Reader, key, r.policy.Hash, r.by, approvalName(r.name), []policy.Step{step})
	if err != nil {
		return identityError(fmt.Errorf("%s: %w", r.approver, err))
	}
	dropped, err := r.write(approval)
	if err != nil {
		return err
	}
	a.say.Say("approved PCRs %s for %s, which holds %s now", sel, r.path, approvals(len(r.policy.Alternatives)))
	if dropped > 0 {
		a.say.Say("dropped the oldest of them: %s", approvals(dropped))
	}
	r.remember(a, snapshot, values, sel)
	return nil
}

func approvals(n int) string {
	if n == 1 {
		return "1 approval"
	}
	return fmt.Sprintf("%d approvals", n)
}

// fixed are the PCRs bound for ever.
func (r *reseal) fixed() policy.Selection { return fixedPCRs(r.policy) }

func fixedPCRs(p *policy.Policy) policy.Selection {
	var all policy.Selection
	for _, s := range p.Steps {
		if s, ok := s.(policy.PCR); ok {
			all = append(all, s.Selection...)
		}
	}
	return all
}

// usual are the PCRs approved last, else those that were to be approved when the
// key was made; nil if neither is known.
func (r *reseal) usual(snapshot *policy.Snapshot) policy.Selection {
	for _, a := range r.policy.Alternatives {
		if pcrs := (&policy.Policy{Steps: a.Steps}).PCRs(); len(pcrs) == 1 {
			return pcrs[0].Selection
		}
	}
	if snapshot == nil {
		return nil
	}
	return minus(selectionOf(snapshot.Values), r.fixed())
}

// checkApprover compares keys, not Names: other programs give the same key
// another Name.
func (r *reseal) checkApprover(pub crypto.PublicKey) error {
	want, err := tpm2.Pub(r.by.Public)
	if err != nil {
		return fmt.Errorf("%s: the approver's key: %w", r.path, err)
	}
	if signer.SamePublicKey(pub, want) {
		return nil
	}
	return signer.WithHint(fmt.Errorf("%s is not the approver of %s, which is another key: %s, SHA-256 of its public key %s", r.approver, r.path, signer.DescribeKey(want), fingerprint(want)),
		"holdfast key show --private-key KEY shows that of a key")
}

// write puts the approval before the others, in the place of one for the same
// values.
func (r *reseal) write(approval policy.Alternative) (dropped int, err error) {
	digest := func(a policy.Alternative) string {
		d, _ := (&policy.Policy{Hash: r.policy.Hash, Steps: a.Steps[:len(a.Steps)-1]}).Digest()
		return string(d)
	}
	all := []policy.Alternative{approval}
	for _, other := range r.policy.Alternatives {
		switch {
		case len(other.Steps) > 0 && digest(other) == digest(approval):
		case r.replace, len(all) == keptApprovals:
			dropped++
		default:
			all = append(all, other)
		}
	}
	r.policy.Alternatives = all
	_, authPolicy, err := r.policy.Marshal()
	if err != nil {
		return 0, err
	}
	text, err := tpm.ReplaceAuthPolicy(r.text, authPolicy)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", r.path, err)
	}
	if now, err := readSmallFile(r.path); err != nil || !bytes.Equal(now, r.text) {
		return 0, errors.Join(fmt.Errorf("%s was changed meanwhile, and stays as it is: try again", r.path), err)
	}
	return dropped, atomicfile.Replace(r.path, text)
}

// remember keeps the values, so that it can be told which of them moved. They
// are for explanations only: the key is resealed without them as well.
func (r *reseal) remember(a *app, snapshot *policy.Snapshot, values policy.Values, sel policy.Selection) {
	kept := policy.Values{}
	if snapshot != nil {
		merge(kept, snapshot.Values)
	}
	approved := minus(sel, r.fixed())
	for _, b := range approved {
		for _, pcr := range b.PCRs {
			merge(kept, policy.Values{b.Hash: {pcr: values[b.Hash][pcr]}})
		}
	}
	if err := policy.WriteSnapshot(r.path, &policy.Snapshot{Values: kept}); err != nil {
		a.say.Warn("the approved PCR values could not be kept, so it will not be told which one moved: " + err.Error())
	}
}

// approvalName names an approval for people who look at the key later.
func approvalName(given string) string {
	if given != "" {
		return given
	}
	return "approved " + time.Now().UTC().Format("2006-01-02 15:04 UTC")
}
