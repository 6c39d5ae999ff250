package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

func (a *app) csrChallenge() *cobra.Command {
	var v verifyFlags
	var out, pending string
	cmd := &cobra.Command{
		Use:   "challenge",
		Short: "Ask the TPM of a request's evidence a question that no other can answer",
		Long: `Checks the evidence as "csr verify" does and writes two files: a challenge, for
the device to answer with "csr answer", and what the CA keeps to tell a right
answer by. Neither is a secret, but nobody else may change the latter.

  holdfast csr challenge --csr device.csr --ek-ca tpm-maker.pem --nonce file:nonce --out challenge.json --pending pending.json
  holdfast csr verify --csr device.csr --ek-ca tpm-maker.pem --nonce file:nonce --pending pending.json --answer answer.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" || pending == "" {
				return usageError(cmd, errors.New("no place for the challenge and what the CA keeps of it: give --out and --pending"))
			}
			if out == pending {
				return usageError(cmd, fmt.Errorf("--out and --pending both name %s", out))
			}
			o, err := v.options(cmd)
			if err != nil {
				return err
			}
			c, err := v.verify(o)
			if err != nil {
				return err
			}
			challenge, kept, err := evidence.NewChallenge(c.Result)
			if err != nil {
				return err
			}
			if err := mustNotExist(out); err != nil {
				return err
			}
			if err := a.writeMarshaled(pending, kept); err != nil {
				return err
			}
			if err := a.writeMarshaled(out, challenge); err != nil {
				_ = os.Remove(pending) // of a challenge that nobody has
				return err
			}
			a.say.Say("send %s to the device, and keep %s", out, pending)
			return nil
		},
	}
	v.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "`file` to create for the challenge")
	cmd.Flags().StringVar(&pending, "pending", "", "`file` to create for what the CA keeps")
	return cmd
}

func (a *app) csrAnswer() *cobra.Command {
	var d answerFlags
	var challenge, out string
	cmd := &cobra.Command{
		Use:   "answer",
		Short: "Answer a CA's challenge with this machine's TPM",
		Long: `Has the TPM decrypt a challenge that "csr challenge" made, which it does if the
evidence was its own.

  holdfast csr answer --challenge challenge.json --out answer.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if challenge == "" {
				return usageError(cmd, errors.New("no challenge given: give --challenge"))
			}
			var answer *evidence.Answer
			err := d.decrypt(cmd.Context(), a, challenge, out, func(t transport.TPM, c *evidence.Challenge, o evidence.Options) (err error) {
				answer, err = evidence.Respond(cmd.Context(), t, c, o)
				return err
			})
			if err != nil {
				return err
			}
			return a.writeMarshaled(out, answer)
		},
	}
	d.add(cmd.Flags())
	cmd.Flags().StringVar(&challenge, "challenge", "", "`file` from the CA")
	cmd.Flags().StringVar(&out, "out", "", "`file` to create for the answer (default: stdout)")
	return cmd
}

// answerFlags say which TPM is to decrypt what a CA sent.
type answerFlags struct {
	identity    identityFlags // of which the TPM's
	endorsement endorsementFlags
}

func (d *answerFlags) add(fs *pflag.FlagSet) {
	d.identity.addTPMDeviceFlag(fs)
	d.endorsement.add(fs)
	d.identity.addDebugFlag(fs)
}

// decrypt has fn use the TPM on what a CA sent in a file, if the result can go
// to out.
func (d *answerFlags) decrypt(ctx context.Context, a *app, file, out string, fn func(transport.TPM, *evidence.Challenge, evidence.Options) error) error {
	a.setDebug(d.identity.debug)
	c, err := readJSON(file, evidence.ParseChallenge)
	if err != nil {
		return err
	}
	if err := mustNotExist(out); err != nil {
		return err
	}
	device, err := a.openTPM(ctx, &d.identity)
	if err != nil {
		return identityError(err)
	}
	err = device.Do(ctx, func(t transport.TPM) error {
		session, err := d.endorsement.session(t)
		if err != nil {
			return err
		}
		return fn(t, c, evidence.Options{Endorsement: session})
	})
	if err == nil {
		return nil
	}
	if errors.Is(err, evidence.ErrOtherTPM) {
		err = signer.WithHint(err, "answer it on the machine that the evidence is of, with the same --tpm-device")
	}
	return identityError(fmt.Errorf("%s: %w", file, d.endorsement.explain(err)))
}

// writeMarshaled writes JSON as writePublic does.
func (a *app) writeMarshaled(path string, v interface{ Marshal() ([]byte, error) }) error {
	data, err := v.Marshal()
	if err != nil {
		return err
	}
	return a.writePublic(path, data)
}
