package main

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign"
	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
)

func (a *app) readCertificateData() *cobra.Command {
	var f identityFlags
	cmd := &cobra.Command{
		Use:   "read-certificate-data",
		Short: "Print what a certificate holds, as JSON",
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
	fs.StringVar(&f.certificate, "certificate", "", "a PEM, DER or PKCS#12 `file`; the first certificate in it is shown")
	f.addKeyFlags(fs)
	f.addStoreFlags(fs)
	return cmd
}
