package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
)

// listTPM lists a TPM's persistent keys and its certificates.
func (a *app) listTPM(ctx context.Context, f *identityFlags, asJSON bool) error {
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return identityError(err)
	}
	c, err := device.Contents(ctx)
	if err != nil {
		return identityError(err)
	}
	lockout, err := device.Lockout(ctx)
	if err != nil {
		return identityError(err)
	}
	if asJSON {
		return a.printTPMJSON(device, lockout, c)
	}
	state := fmt.Sprintf(", %d of %d wrong passwords counted", lockout.Failed, lockout.Max)
	if lockout.Locked {
		state = ", locked out after wrong passwords"
	}
	fmt.Fprintf(a.stdout, "TPM %s%s\n", term.Clean(device.String()), state)
	if len(c.Keys)+len(c.Indexes) == 0 {
		fmt.Fprintln(a.stdout, "  no persistent keys, no certificates")
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, k := range c.Keys {
		fmt.Fprintf(w, "  %s\t%s%s\n", handleRef(k.Handle), persistentKind(k), fittingCertificate(k, c))
	}
	for _, x := range c.Indexes {
		if x.Guarded {
			fmt.Fprintf(w, "  %s\tnot read: it may want a password\n", handleRef(x.Handle))
		}
		for i, cert := range x.Certificates {
			name := term.Clean(cert.Subject.String())
			if i == 0 {
				fmt.Fprintf(w, "  %s\tcertificate %s, until %s, %s\n", handleRef(x.Handle), name, cert.NotAfter.UTC().Format(time.DateOnly), fittingKey(cert, c))
			} else {
				fmt.Fprintf(w, "  \tand certificate %s\n", name)
			}
		}
	}
	return w.Flush()
}

func handleRef(h tpm2.TPMHandle) string { return fmt.Sprintf("handle:0x%08x", uint32(h)) }

// persistentKind says what a key is, and what keeps it from signing.
func persistentKind(k tpm.PersistentKey) string {
	switch {
	case k.Key != nil:
		return signer.DescribeKey(k.Key) + " key" + bound(k.Public)
	case k.Public == nil:
		return "of a kind that is not known"
	case k.Public.ObjectAttributes.Restricted && k.Public.ObjectAttributes.Decrypt:
		return "storage key, which does not sign"
	}
	return "no signing key: " + term.Clean(k.Err.Error())
}

func bound(p *tpm2.TPMTPublic) string {
	if len(p.AuthPolicy.Buffer) > 0 && !p.ObjectAttributes.UserWithAuth {
		return ", bound to a policy"
	}
	return ""
}

func fittingCertificate(k tpm.PersistentKey, c *tpm.Contents) string {
	if k.Key == nil {
		return ""
	}
	for _, x := range c.Indexes {
		for _, cert := range x.Certificates {
			if fits(cert, k.Key) {
				return ", certificate " + term.Clean(cert.Subject.String())
			}
		}
	}
	return ", no certificate"
}

func fittingKey(cert *x509.Certificate, c *tpm.Contents) string {
	for _, k := range c.Keys {
		if k.Key != nil && fits(cert, k.Key) {
			return "fits " + handleRef(k.Handle)
		}
	}
	return "no persistent key fits"
}

func fits(cert *x509.Certificate, key crypto.PublicKey) bool {
	pub, err := signer.PublicKey(cert)
	return err == nil && signer.SamePublicKey(pub, key)
}

type tpmJSON struct {
	Device       string          `json:"device"`
	Lockout      *lockoutState   `json:"lockout"`
	Keys         []tpmObjectJSON `json:"keys"`
	Certificates []tpmObjectJSON `json:"certificates"`
}

type tpmObjectJSON struct {
	Reference   string     `json:"reference"`
	Type        string     `json:"type,omitempty"` // of a key that signs
	Subject     string     `json:"subject,omitempty"`
	NotAfter    *time.Time `json:"notAfter,omitempty"`
	Certificate string     `json:"certificate,omitempty"` // of a key: the reference of what fits it
	Unread      bool       `json:"unread,omitempty"`      // it may be a certificate, behind a password
}

func (a *app) printTPMJSON(device *tpm.Device, l tpm.Lockout, c *tpm.Contents) error {
	out := tpmJSON{Device: device.String(), Lockout: newLockoutState(l), Keys: []tpmObjectJSON{}, Certificates: []tpmObjectJSON{}}
	for _, k := range c.Keys {
		o := tpmObjectJSON{Reference: handleRef(k.Handle)}
		if k.Key != nil {
			o.Type = signer.DescribeKey(k.Key)
		}
		for _, x := range c.Indexes {
			if k.Key != nil && len(x.Certificates) > 0 && fits(x.Certificates[0], k.Key) {
				o.Certificate = handleRef(x.Handle)
			}
		}
		out.Keys = append(out.Keys, o)
	}
	for _, x := range c.Indexes {
		if x.Guarded {
			out.Certificates = append(out.Certificates, tpmObjectJSON{Reference: handleRef(x.Handle), Unread: true})
		}
		for _, cert := range x.Certificates {
			out.Certificates = append(out.Certificates, tpmObjectJSON{Reference: handleRef(x.Handle), Subject: cert.Subject.String(), NotAfter: &cert.NotAfter})
		}
	}
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
