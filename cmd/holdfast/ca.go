package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
)

func (a *app) ca() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "A small certificate authority, as IAM Roles Anywhere wants it",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.caInit(), a.caSign())
	return cmd
}

func (a *app) caInit() *cobra.Command {
	var k newKeyFlags
	var subject, certificate string
	var days int
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Create a CA: its key and its certificate",
		Long: `Creates a private key and a self-signed CA certificate (CA:TRUE, keyCertSign,
cRLSign) that a Roles Anywhere trust anchor takes as it is. Keep the key off the
machines that get certificates.

  holdfast ca init --subject "CN=Acme edge CA,O=Acme" --private-key ca.key --certificate ca.crt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := enroll.ParseSubject(subject)
			if err != nil {
				return usageError(cmd, fmt.Errorf("--subject: %w", err))
			}
			if certificate == "" {
				return usageError(cmd, errors.New("no place for the certificate: give --certificate FILE"))
			}
			if days <= 0 {
				return usageError(cmd, errors.New("--days takes a number above zero"))
			}
			if err := mustNotExist(certificate); err != nil {
				return err
			}
			made, err := k.create(cmd, a)
			if err != nil {
				return err
			}
			defer closeKey(made.key)
			if err := a.writeCA(made.key, certificate, enroll.CAOptions{Subject: name, Lifetime: lifetime(days)}); err != nil {
				if made.undo != nil {
					made.undo() // of no use to anybody
				}
				return err
			}
			a.say.Say("created %s key in %s and CA certificate in %s", signer.DescribeKey(made.key.Public()), made.where, certificate)
			return nil
		},
	}
	k.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&subject, "subject", "", `distinguished `+"`name`"+` of the CA: "CN=Acme edge CA,O=Acme"`)
	fs.StringVar(&certificate, "certificate", "", "`file` to create for the CA's certificate")
	fs.IntVar(&days, "days", days10Years, "`days` the CA is valid")
	return cmd
}

const days10Years = 3650

func lifetime(days int) time.Duration { return time.Duration(days) * 24 * time.Hour }

func (a *app) writeCA(key crypto.Signer, path string, o enroll.CAOptions) error {
	ca, err := enroll.NewCA(key, o)
	if err != nil {
		return err
	}
	return a.writePublic(path, enroll.EncodePEM(ca.Certificate))
}

func (a *app) caSign() *cobra.Command {
	var f identityFlags
	var n nameFlags
	var csr, out string
	var days int
	cmd := &cobra.Command{
		Use:   "sign",
		Short: "Issue a certificate for a signing request",
		Long: `Checks a certificate signing request and issues a certificate for it (CA:FALSE,
digitalSignature, clientAuth). Subject and alternative names are the request's
unless given here.

  holdfast ca sign --certificate ca.crt --private-key ca.key --csr device.csr --out device.crt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkFlags(cmd); err != nil {
				return err
			}
			if f.certificate == "" || f.privateKey == "" || csr == "" {
				return usageError(cmd, errors.New("give the CA with --certificate and --private-key, and the request with --csr"))
			}
			if days <= 0 {
				return usageError(cmd, errors.New("--days takes a number above zero"))
			}
			names, err := n.request()
			if err != nil {
				return usageError(cmd, err)
			}
			a.setDebug(f.debug)
			ca, err := a.openCA(cmd.Context(), &f)
			if err != nil {
				return err
			}
			defer closeKey(ca.Key)
			text, err := readRequest(csr)
			if err != nil {
				return err
			}
			request, err := enroll.ParseRequest(text)
			if err != nil {
				return fmt.Errorf("%s: %w", csr, err)
			}
			cert, err := ca.Sign(request, enroll.LeafOptions{
				Subject:        names.Subject,
				DNSNames:       names.DNSNames,
				EmailAddresses: names.EmailAddresses,
				IPAddresses:    names.IPAddresses,
				URIs:           names.URIs,
				Lifetime:       lifetime(days),
			})
			if err != nil {
				return err
			}
			if err := a.writePublic(out, enroll.EncodePEM(cert)); err != nil {
				return err
			}
			a.say.Say("issued %q, serial %x, valid until %s", cert.Subject, cert.SerialNumber, cert.NotAfter.UTC().Format(time.RFC3339))
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.certificate, "certificate", "", "the CA's certificate: a `file`")
	fs.StringVar(&f.privateKey, "private-key", "", "the CA's private key: a `file`")
	f.addKeyFlags(fs)
	n.add(cmd)
	fs.StringVar(&csr, "csr", "", "certificate signing request, PEM or DER: a `file`, or - for stdin")
	fs.StringVar(&out, "out", "", "`file` to create for the certificate (default: stdout)")
	fs.IntVar(&days, "days", 30, "`days` the certificate is valid; never beyond the CA's own end")
	return cmd
}

func (a *app) openCA(ctx context.Context, f *identityFlags) (*enroll.CA, error) {
	certs, err := a.readCertificates(ctx, signer.ParseReference(f.certificate), f)
	if err != nil {
		return nil, err
	}
	m, err := a.openKey(ctx, signer.ParseReference(f.privateKey), likelyCA(certs), f)
	if err != nil {
		return nil, err
	}
	cert, _ := signer.SelectLeaf(m.key.Public(), certs, time.Now())
	ca, err := enroll.LoadCA(cert, m.key)
	if err != nil {
		closeKey(m.key)
		return nil, identityError(err)
	}
	return ca, nil
}

func likelyCA(certs []*x509.Certificate) crypto.PublicKey {
	for _, c := range certs {
		if pub, err := signer.PublicKey(c); err == nil && c.IsCA {
			return pub
		}
	}
	return nil
}

func readRequest(path string) ([]byte, error) {
	if path == "-" {
		return readSmall(os.Stdin, "standard input")
	}
	return readSmallFile(path)
}
