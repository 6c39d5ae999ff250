package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/atomicfile"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

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
			if err := v.check(cmd, &f); err != nil {
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
	isList := func(v json.RawMessage) bool { return bytes.HasPrefix(v, []byte("[")) }
	if err == nil && (banks == nil || len(banks) > 0 && !slices.ContainsFunc(slices.Collect(maps.Values(banks)), isList)) {
		err = fmt.Errorf("%w: no list of a bank's signed policies", signer.ErrMalformed)
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
	return atomicfile.Replace(path, text)
}

func sameApproval(raw json.RawMessage, entry policy.SignedEntry) bool {
	var e struct{ PKFP, Pol string }
	return json.Unmarshal(raw, &e) == nil && strings.EqualFold(e.PKFP, hex.EncodeToString(entry.KeyFingerprint)) &&
		strings.EqualFold(e.Pol, hex.EncodeToString(entry.Policy))
}
