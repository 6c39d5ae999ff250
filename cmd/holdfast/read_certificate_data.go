package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // a fingerprint, not a signature
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cloudflare/circl/sign"
	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

func (a *app) readCertificateData() *cobra.Command {
	var f identityFlags
	cmd := &cobra.Command{
		Use:   "read-certificate-data",
		Short: "Print what a certificate holds",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkFlags(cmd); err != nil {
				return err
			}
			a.setDebug(f.debug)
			ref := signer.ParseReference(f.certificate)
			if ref.IsZero() {
				return usageError(cmd, errors.New("no certificate given: give --certificate"))
			}
			if ref.Scheme == signer.SchemePKCS11 {
				o := f.tokenOptions()
				if !cmd.Flags().Changed("pin") {
					o.PIN = nil // what is shown to everybody will do
				}
				return a.printMatching(cmd.Context(), ref, &f, o)
			}
			certs, err := a.readCertificates(cmd.Context(), ref, &f)
			if err != nil {
				return err
			}
			cert := certs[0]
			pub, err := signer.PublicKey(cert)
			if err != nil {
				return identityError(fmt.Errorf("%s: %w", ref, err))
			}
			doc := struct {
				KeyType             string   `json:"keyType"`
				CertificateData     string   `json:"certificateData"`
				SerialNumber        string   `json:"serialNumber"`
				SupportedAlgorithms []string `json:"supportedAlgorithms"`
			}{CertificateData: base64.StdEncoding.EncodeToString(cert.Raw), SerialNumber: cert.SerialNumber.String()}
			switch k := pub.(type) {
			case *rsa.PublicKey:
				doc.KeyType, doc.SupportedAlgorithms = "RSA", []string{"RSASHA256", "RSASHA384", "RSASHA512"}
			case *ecdsa.PublicKey:
				doc.KeyType, doc.SupportedAlgorithms = "EC", []string{"ECSHA256", "ECSHA384", "ECSHA512"}
			case sign.PublicKey:
				doc.KeyType, doc.SupportedAlgorithms = "ML-DSA", []string{k.Scheme().Name()}
			default:
				return identityError(fmt.Errorf("%s: %w: %s", ref, signer.ErrUnsupportedKey, signer.DescribeKey(pub)))
			}
			return json.NewEncoder(a.stdout).Encode(doc)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.certificate, "certificate", "", "a PEM, DER or PKCS#12 `file`, of which the first certificate is shown, or a pkcs11: URI, of which all that match are")
	f.addKeyFlags(fs)
	f.addStoreFlags(fs)
	return cmd
}

// printMatching lists the certificates on tokens that a URI matches.
func (a *app) printMatching(ctx context.Context, ref signer.Reference, f *identityFlags, o hosted.Options) error {
	host, uri, err := a.openModule(ctx, ref, f)
	if err != nil {
		return identityError(err)
	}
	found, err := host.Certificates(ctx, uri, o)
	if err != nil && !errors.Is(err, signer.ErrCertificateNotFound) && !errors.Is(err, signer.ErrPINRequired) {
		return identityError(err)
	}
	found = slices.DeleteFunc(found, func(c pkcs11.Certificate) bool { return c.Issuer || c.X509 == nil })
	var b strings.Builder
	if len(found) == 0 {
		b.WriteString("No matching identities\n")
	} else {
		b.WriteString("Matching identities\n")
	}
	for i, c := range found {
		fmt.Fprintf(&b, "%d) Hex Fingerprint: %x\nSubject: %s\nIssuer: %s\nSerial Number: %X\nURI: %s\n", i+1,
			sha1.Sum(c.DER), term.Clean(c.X509.Subject.String()), term.Clean(c.X509.Issuer.String()), c.X509.SerialNumber, withModule(c.URI(), uri).Exact())
	}
	_, err = a.stdout.Write([]byte(b.String()))
	return err
}
