package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

func (a *app) keyPCRs() *cobra.Command {
	var f identityFlags
	var pcrs, out string
	cmd := &cobra.Command{
		Use:   "pcrs",
		Short: "Read a machine's PCR values, for them to be approved",
		Long: `Reads PCRs from the TPM and prints their values as JSON, which "key approve" and
"key reseal" take after --pcr-values.

  holdfast key pcrs --tpm-pcrs sha256:0,7 --out values.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sel, err := policy.ParseSelection(pcrs)
			if err != nil {
				return usageError(cmd, fmt.Errorf("--tpm-pcrs: %w", err))
			}
			a.setDebug(f.debug)
			values, err := a.readPCRs(cmd.Context(), sel, &f)
			if err != nil {
				return identityError(err)
			}
			text, err := json.MarshalIndent(policy.Snapshot{Values: values}, "", "  ")
			if err != nil {
				return err
			}
			return a.writePublic(out, append(text, '\n'))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&pcrs, "tpm-pcrs", "", "the `PCRs` to read: sha256:0,7")
	fs.StringVar(&out, "out", "", "`file` to create (default: stdout)")
	fs.StringVar(&f.tpmDevice, "tpm-device", "", "the `TPM`: a device or a socket (default $TPM_DEVICE, else the machine's)")
	fs.BoolVar(&f.debug, "debug", false, "say on stderr what is done; secrets are left out")
	return cmd
}

func (a *app) keyApprove() *cobra.Command {
	var f identityFlags
	var v approvedValues
	var approver, out string
	cmd := &cobra.Command{
		Use:   "approve",
		Short: "Approve PCR values for the keys that are bound to the approver's key",
		Long: `Signs PCR values: keys made with --tpm-public-key, whose approver this is, sign on
machines whose PCRs have them. The values are those of --pcr-values, which "key
pcrs" writes, or this machine's own. The approval is added to the file of signed
PCR policies that systemd uses; a key finds it after --tpm-pcr-signature, or as
/etc/systemd/tpm2-pcr-signature.json. It is no secret.

The approver's key needs neither the device nor a TPM. Keep it off the devices.

  holdfast key approve --approver approver.key --pcr-values values.json --out tpm2-pcr-signature.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if approver == "" || out == "" {
				return usageError(cmd, errors.New("give the approver's key with --approver, and with --out the file for what it approves"))
			}
			if err := v.check(cmd); err != nil {
				return err
			}
			a.setDebug(f.debug)
			ctx := cmd.Context()
			if _, err := existingApprovals(out); err != nil {
				return identityError(err)
			}
			sel, values, err := v.read(ctx, a, &f, nil)
			if err != nil {
				return identityError(err)
			}
			if len(sel) != 1 {
				return usageError(cmd, signer.WithHint(fmt.Errorf("the file of signed PCR policies has no room for PCRs of several banks at once, %s", sel),
					"choose those of one bank with --tpm-pcrs"))
			}
			key, err := a.openApprover(ctx, approver, &f)
			if err != nil {
				return err
			}
			defer closeKey(key)
			entry, err := policy.SignPCRs(rand.Reader, key, policyHash, sel, values)
			if err != nil {
				return identityError(fmt.Errorf("%s: %w", approver, err))
			}
			if err := a.addApproval(out, entry); err != nil {
				return err
			}
			a.say.Say("approved these values of PCRs %s, in %s", sel, out)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&approver, "approver", "", "the approver's private `key`: a file, a pkcs11: URI, or a TPM's")
	v.add(fs)
	fs.StringVar(&out, "out", "", "`file` of signed PCR policies to add to, made if there is none")
	f.addKeyFlags(fs)
	return cmd
}

// approvedValues say which PCR values are approved.
type approvedValues struct {
	pcrs string
	file string
}

func (v *approvedValues) add(fs *pflag.FlagSet) {
	fs.StringVar(&v.pcrs, "tpm-pcrs", "", "the `PCRs` to approve: sha256:0,7 (default: those that there are values of, or that were approved before)")
	fs.StringVar(&v.file, "pcr-values", "", "`file` of PCR values, as \"key pcrs\" writes it (default: the TPM's present ones)")
}

func (v *approvedValues) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("tpm-pcrs") {
		if _, err := policy.ParseSelection(v.pcrs); err != nil {
			return usageError(cmd, fmt.Errorf("--tpm-pcrs: %w", err))
		}
	}
	return nil
}

// read returns the values and which of them are approved: what --tpm-pcrs
// says, else usual, else all that the file has.
func (v *approvedValues) read(ctx context.Context, a *app, f *identityFlags, usual policy.Selection) (sel policy.Selection, values policy.Values, err error) {
	var given policy.Snapshot
	if v.file != "" {
		text, err := readSmallFile(v.file)
		if err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal(text, &given); err != nil {
			return nil, nil, signer.WithHint(fmt.Errorf("%s: %w", v.file, malformedJSON(err)), "holdfast key pcrs writes such a file")
		}
		values = given.Values
	}
	switch {
	case v.pcrs != "":
		if sel, err = policy.ParseSelection(v.pcrs); err != nil {
			return nil, nil, err
		}
	case usual != nil:
		sel = usual
	default:
		sel = selectionOf(values)
	}
	switch missing := minus(sel, selectionOf(values)); {
	case len(sel) == 0 && v.file != "":
		return nil, nil, fmt.Errorf("%s: %w: no PCR value in it", v.file, signer.ErrMalformed)
	case len(sel) == 0:
		return nil, nil, signer.WithHint(errors.New("it is not known which PCRs to approve"), "name them with --tpm-pcrs sha256:0,7")
	case v.file != "" && len(missing) > 0:
		return nil, nil, signer.WithHint(fmt.Errorf("%s: no value of PCRs %s, which are to be approved", v.file, missing), "choose others with --tpm-pcrs, or read these too")
	case v.file == "":
		if values, err = a.readPCRs(ctx, sel, f); err != nil {
			return nil, nil, err
		}
	}
	return sel, values, a.measured(sel, values)
}

// malformedJSON leaves out what was found instead: it may be a secret that was
// named by mistake.
func malformedJSON(err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, signer.ErrMalformed):
		return err
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: no JSON from byte %d on", signer.ErrMalformed, syntax.Offset)
	}
	return fmt.Errorf("%w: not the JSON of PCR values", signer.ErrMalformed)
}

// readPCRs reads this machine's.
func (a *app) readPCRs(ctx context.Context, sel policy.Selection, f *identityFlags) (values policy.Values, err error) {
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return nil, err
	}
	err = device.Do(ctx, func(t transport.TPM) error {
		values, err = policy.Read(ctx, t, sel)
		return err
	})
	return values, err
}

// existingApprovals reads the file that an approval is to be added to. It is
// empty if there is none.
func existingApprovals(path string) (banks map[string]json.RawMessage, err error) {
	text, err := readSmallFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]json.RawMessage{}, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err = policy.ParseSignedPCRs(text); err == nil {
		err = json.Unmarshal(text, &banks)
	}
	if err == nil && banks == nil {
		err = fmt.Errorf("%w: null", signer.ErrMalformed)
	}
	if err != nil {
		return nil, signer.WithHint(fmt.Errorf("%s: %w", path, err), "it is no file of signed PCR policies, and stays as it is: name another")
	}
	return banks, nil
}

// addApproval adds an entry to the file, in the place of one by the same key for
// the same values. What else the file has it keeps, known to holdfast or not. It
// is read as it is now: since it was last looked at, a person may have been asked
// for a PIN.
func (a *app) addApproval(path string, entry policy.SignedEntry) error {
	all, err := existingApprovals(path)
	if err != nil {
		return identityError(err)
	}
	text, err := (&policy.SignedPCRs{Entries: []policy.SignedEntry{entry}}).Marshal()
	if err != nil {
		return err
	}
	var added map[string][]json.RawMessage
	if err := json.Unmarshal(text, &added); err != nil {
		return err
	}
	for bank, more := range added {
		var there []json.RawMessage
		if all[bank] != nil {
			if err := json.Unmarshal(all[bank], &there); err != nil {
				return err
			}
		}
		there = slices.DeleteFunc(there, func(e json.RawMessage) bool { return sameApproval(e, entry) })
		if all[bank], err = json.Marshal(append(there, more...)); err != nil {
			return err
		}
	}
	if text, err = json.Marshal(all); err != nil {
		return err
	}
	text = append(text, '\n')
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return a.writePublic(path, text)
	}
	return replaceFile(path, text)
}

func sameApproval(raw json.RawMessage, entry policy.SignedEntry) bool {
	var e struct{ PKFP, Pol string }
	return json.Unmarshal(raw, &e) == nil && strings.EqualFold(e.PKFP, hex.EncodeToString(entry.KeyFingerprint)) &&
		strings.EqualFold(e.Pol, hex.EncodeToString(entry.Policy))
}

// openApprover opens the key that approves. What it signs is checked: not every
// token is to be trusted with that.
func (a *app) openApprover(ctx context.Context, ref string, f *identityFlags) (crypto.Signer, error) {
	m, err := a.openKey(ctx, signer.ParseReference(ref), nil, f)
	if err != nil {
		return nil, err
	}
	if _, err := policy.AuthorizeBy(m.key.Public()); err != nil {
		closeKey(m.key)
		return nil, identityError(fmt.Errorf("%s: %w", ref, err))
	}
	return checkedSigner{m.key}, nil
}

// A checkedSigner verifies each signature before it is used.
type checkedSigner struct{ crypto.Signer }

func (s checkedSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := s.Signer.Sign(random, digest, opts)
	if err != nil {
		return nil, err
	}
	return sig, verifyDigest(s.Public(), digest, sig, opts.HashFunc())
}

func verifyDigest(pub crypto.PublicKey, digest, sig []byte, hash crypto.Hash) error {
	ok := false
	switch k := pub.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(k, hash, digest, sig) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, digest, sig)
	}
	if !ok {
		return errors.New("the signature that the approver's key made does not verify")
	}
	return nil
}

func (s checkedSigner) Close() error {
	closeKey(s.Signer)
	return nil
}
