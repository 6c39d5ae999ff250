package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

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
	f.addTPMDeviceFlag(fs)
	f.addDebugFlag(fs)
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

func (v *approvedValues) check(cmd *cobra.Command, f *identityFlags) error {
	if err := f.checkFlags(cmd); err != nil {
		return err
	}
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
		return nil, nil, &classed{signer.WithHint(errors.New("it is not known which PCRs to approve"), "name them with --tpm-pcrs sha256:0,7"), errUsage}
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
