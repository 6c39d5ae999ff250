package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
)

func (a *app) csr() *cobra.Command {
	var f identityFlags
	var n nameFlags
	var e evidenceFlags
	var out string
	cmd := &cobra.Command{
		Use:   "csr",
		Short: "Write a certificate signing request for a key; evidence of where the key is",
		Long: `Writes a PKCS#10 certificate signing request in PEM, signed by the key, which
"holdfast ca sign" or any other CA turns into a certificate.

  holdfast csr --private-key device.key --subject "CN=device-17,OU=edge,O=Acme"

With --evidence the TPM that holds the key certifies it too, in a file next to the
request: that it was made in there, cannot leave, and is the request's. The
sub-commands are for what CA and device then say to each other.

` + evidenceExample,
		Args: csrArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkFlags(cmd); err != nil {
				return err
			}
			if f.privateKey == "" {
				return usageError(cmd, errors.New("no key given: give --private-key"))
			}
			if n.subject == "" {
				return usageError(cmd, errors.New(`no subject given: give --subject "CN=…"`))
			}
			o, err := n.request()
			if err != nil {
				return usageError(cmd, err)
			}
			evidenceOut, eo, err := e.check(cmd, out)
			if err != nil {
				return err
			}
			a.setDebug(f.debug)
			m, err := a.openKey(cmd.Context(), signer.ParseReference(f.privateKey), nil, &f)
			if err != nil {
				return err
			}
			defer closeKey(m.key)
			if evidenceOut != "" {
				return a.writeWithEvidence(cmd.Context(), signer.ParseReference(f.privateKey).String(), m.key, o, out, &e, evidenceOut, eo)
			}
			der, err := enroll.NewRequest(m.key, o)
			if err != nil {
				return identityError(err)
			}
			return a.writePublic(out, requestPEM(der))
		},
	}
	cmd.AddCommand(a.csrVerify(), a.csrChallenge(), a.csrAnswer(), a.csrSeal(), a.csrOpen())
	cmd.Flags().StringVar(&f.privateKey, "private-key", "", "private `key` to request a certificate for: a file, a TPM key file (TSS2), a pkcs11: URI, or handle:0x… of a TPM key")
	f.addKeyFlags(cmd.Flags())
	n.add(cmd)
	e.add(cmd.Flags())
	cmd.Flags().StringVar(&out, "out", "", "`file` to create (default: stdout)")
	return cmd
}

// csrArgs is noArgs for a command that has flags of its own and sub-commands.
func csrArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 0 && cmd.Flags().Changed("evidence"):
		return usageError(cmd, errors.New("stray argument "+quoted(args[0])+": the file for the evidence follows an equals sign, --evidence=FILE"))
	case len(args) > 0 && cmd.Flags().NFlag() > 0 && len(cmd.SuggestionsFor(args[0])) == 0:
		return strayArgument(cmd, args[0])
	}
	return noArgs(cmd, args)
}

func requestPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// nameFlags are the names that go into a request or a certificate.
type nameFlags struct {
	subject string
	dns     []string
	uris    []string
	emails  []string
	ips     []net.IP
}

func (n *nameFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&n.subject, "subject", "", `distinguished `+"`name`"+`: "CN=device-17,OU=edge,O=Acme" (RFC 4514) or "/O=Acme/CN=device-17"`)
	fs.StringArrayVar(&n.dns, "dns", nil, "DNS `name` (repeatable)")
	fs.StringArrayVar(&n.uris, "uri", nil, "`URI`, such as a SPIFFE ID (repeatable)")
	fs.StringArrayVar(&n.emails, "email", nil, "e-mail `address` (repeatable)")
	fs.IPSliceVar(&n.ips, "ip", nil, "IP `address` (repeatable)")
}

func (n *nameFlags) request() (enroll.RequestOptions, error) {
	o := enroll.RequestOptions{DNSNames: n.dns, EmailAddresses: n.emails, IPAddresses: n.ips}
	var err error
	if n.subject != "" {
		if o.Subject, err = enroll.ParseSubject(n.subject); err != nil {
			return o, err
		}
	}
	for _, text := range n.uris {
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" {
			return o, fmt.Errorf("--uri %q is no URI with a scheme", text)
		}
		o.URIs = append(o.URIs, u)
	}
	return o, nil
}

// writePublic writes what is no secret: to a new file, or to stdout.
func (a *app) writePublic(path string, text []byte) error {
	if path == "" {
		_, err := a.stdout.Write(text)
		return err
	}
	if err := mustNotExist(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(path) // half a file would pass for a whole one
	}
	return err
}
