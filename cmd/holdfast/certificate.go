package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
)

func (a *app) certificate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certificate",
		Short: "Put certificates where their keys are",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.certificateInstall())
	return cmd
}

func (a *app) certificateInstall() *cobra.Command {
	var f identityFlags
	var replace bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Store a certificate beside its key on a PKCS#11 token",
		Long: `Stores a certificate on the token that holds its private key, under the key's
label and id, after checking that the two belong together.

  holdfast certificate install --certificate device.crt --private-key 'pkcs11:token=edge;object=device'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.certificate == "" || f.privateKey == "" {
				return usageError(cmd, errors.New("give the certificate with --certificate and its key with --private-key"))
			}
			ref := signer.ParseReference(f.privateKey)
			if ref.Scheme != signer.SchemePKCS11 {
				return usageError(cmd, fmt.Errorf("--private-key %s: certificates are installed into PKCS#11 tokens only; beside a key file, a file will do", ref))
			}
			a.setDebug(f.debug)
			ctx := cmd.Context()
			id, err := a.openIdentity(ctx, &f)
			if err != nil {
				return err
			}
			defer id.Close()
			host, uri, err := a.openModule(ctx, ref, &f)
			if err != nil {
				return identityError(err)
			}
			o := f.tokenOptions()
			o.Replace = replace
			stored, err := host.ImportCertificate(ctx, uri, id.Certificate(), o)
			if err != nil {
				return identityError(err)
			}
			a.say.Say("stored %q as %s", id.Certificate().Subject, withModule(stored.URI(), uri))
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.certificate, "certificate", "", "the certificate: a `file`")
	fs.StringVar(&f.privateKey, "private-key", "", "its key: a pkcs11: `URI`")
	fs.BoolVar(&replace, "replace", false, "take the place of the certificates that the key has")
	f.addKeyFlags(fs)
	return cmd
}
