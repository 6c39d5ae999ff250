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
	var out string
	cmd := &cobra.Command{
		Use:   "csr",
		Short: "Write a certificate signing request for a key",
		Long: `Writes a PKCS#10 certificate signing request in PEM, signed by the key, which
"holdfast ca sign" or any other CA turns into a certificate.

  holdfast csr --private-key device.key --subject "CN=device-17,OU=edge,O=Acme"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
			a.setDebug(f.debug)
			m, err := a.openKey(cmd.Context(), signer.ParseReference(f.privateKey), nil, &f)
			if err != nil {
				return err
			}
			defer closeKey(m.key)
			der, err := enroll.NewRequest(m.key, o)
			if err != nil {
				return err
			}
			return a.writePublic(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
		},
	}
	cmd.Flags().StringVar(&f.privateKey, "private-key", "", "private key to request a certificate for: a `file`")
	f.addKeyFlags(cmd.Flags())
	n.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "`file` to create (default: stdout)")
	return cmd
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
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
