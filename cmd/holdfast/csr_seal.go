package main

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/software"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

func (a *app) csrSeal() *cobra.Command {
	var v verifyFlags
	var certificate, out string
	cmd := &cobra.Command{
		Use:   "seal",
		Short: "Encrypt a request's certificate so that only the TPM of its evidence opens it",
		Long: `Checks the evidence as "csr verify" does and encrypts the certificate that was
issued for the request, with what else is in its file. Whoever made up the
evidence cannot open it, so the certificate is worth something only with the key
in the TPM, if it is not to be had elsewhere: keep the plain one to yourself.

  holdfast csr seal --csr device.csr --ek-ca tpm-maker.pem --nonce file:nonce --certificate device.crt --out device.crt.sealed`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if certificate == "" {
				return usageError(cmd, errors.New("nothing to seal: give --certificate"))
			}
			o, err := v.options(cmd)
			if err != nil {
				return err
			}
			c, err := v.verify(o)
			if err != nil {
				return err
			}
			certs, err := software.ReadCertificates(cmd.Context(), certificate, software.Options{})
			if err != nil {
				return identityError(err)
			}
			if pub, err := signer.PublicKey(certs[0]); err != nil || !signer.SamePublicKey(pub, c.PublicKey) {
				return identityError(signer.WithHint(fmt.Errorf("%s: the first certificate, of %q, is not for the request's key", certificate, certs[0].Subject),
					"issue it for this request: holdfast ca sign --csr"))
			}
			sealed, err := evidence.Seal(c.Result, enroll.EncodePEM(certs...))
			if err != nil {
				return err
			}
			return a.writeMarshaled(out, sealed)
		},
	}
	v.add(cmd)
	cmd.Flags().StringVar(&certificate, "certificate", "", "`file` of the certificate, and of CA certificates after it if the device is to have them")
	cmd.Flags().StringVar(&out, "out", "", "`file` to create for the sealed certificate (default: stdout)")
	return cmd
}

func (a *app) csrOpen() *cobra.Command {
	var d answerFlags
	var sealed, out string
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Open a certificate that a CA sealed for this machine's TPM",
		Long: `Has the TPM decrypt what "csr seal" made, and writes the certificate as PEM.

  holdfast csr open --sealed device.crt.sealed --out device.crt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sealed == "" {
				return usageError(cmd, errors.New("nothing to open: give --sealed"))
			}
			var data []byte
			err := d.decrypt(cmd.Context(), a, sealed, out, func(t transport.TPM, c *evidence.Challenge, o evidence.Options) (err error) {
				data, err = evidence.Open(cmd.Context(), t, c, o)
				return err
			})
			if err != nil {
				return err
			}
			// Anybody can encrypt to a TPM: only certificates come out here.
			contents, err := software.Parse(cmd.Context(), sealed, data, software.Options{})
			if err == nil && len(contents.Certificates) == 0 {
				err = fmt.Errorf("%s: %w in it", sealed, signer.ErrCertificateNotFound)
			}
			if err != nil {
				return identityError(err)
			}
			return a.writePublic(out, enroll.EncodePEM(contents.Certificates...))
		},
	}
	d.add(cmd.Flags())
	cmd.Flags().StringVar(&sealed, "sealed", "", "`file` from the CA")
	cmd.Flags().StringVar(&out, "out", "", "`file` to create for the certificate (default: stdout)")
	return cmd
}
