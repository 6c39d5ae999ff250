package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/signer"
)

func (a *app) list() *cobra.Command {
	var f identityFlags
	var uri string
	var asJSON, inTPM bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys and certificates of PKCS#11 tokens or a TPM, with references to paste",
		Long: `Lists the tokens of a PKCS#11 module, the keys and certificates on them, which
certificate fits which key, and for each a URI to paste after --certificate.
Without --pin nothing is logged in to, and a token may hide its private keys.

With --tpm it lists a TPM's persistent keys and the certificates in its NV
indexes, and presents no password.

  holdfast list
  holdfast list --pkcs11-lib /usr/lib/softhsm/libsofthsm2.so --uri pkcs11:token=edge --pin prompt
  holdfast list --tpm`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.setDebug(f.debug)
			if inTPM {
				for _, other := range []string{"uri", "pkcs11-lib", "pin", "pin-final-try"} {
					if cmd.Flags().Changed(other) {
						return usageError(cmd, fmt.Errorf("--%s is for PKCS#11 tokens, and --tpm lists a TPM", other))
					}
				}
				return a.listTPM(cmd.Context(), &f, asJSON)
			}
			if cmd.Flags().Changed("tpm-device") {
				return usageError(cmd, errors.New("--tpm-device goes with --tpm, which lists a TPM"))
			}
			host, u, err := a.openModule(cmd.Context(), signer.ParseReference(uri), &f)
			if err != nil {
				return identityError(err)
			}
			o := f.tokenOptions()
			if !cmd.Flags().Changed("pin") {
				o.PIN, o.KeyPIN = nil, nil
			}
			return a.printTokens(cmd.Context(), host, u, o, asJSON)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&uri, "uri", "pkcs11:", "list only what this `URI` names")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	fs.BoolVar(&inTPM, "tpm", false, "list what the TPM has")
	f.addTokenFlags(fs)
	f.addTPMDeviceFlag(fs)
	f.addDebugFlag(fs)
	return cmd
}

func (a *app) printTokens(ctx context.Context, host *hosted.Host, uri *pkcs11.URI, o hosted.Options, asJSON bool) error {
	tokens, err := host.List(ctx, uri, o)
	if err != nil {
		return identityError(err)
	}
	// What the module was found by goes into the URIs: pasted, they find it again.
	query := func(u *pkcs11.URI) string { return withModule(u, uri).Exact() }
	if asJSON {
		return a.printTokensJSON(tokens, query)
	}
	if len(tokens) == 0 {
		a.say.Say("no token found")
		return nil
	}
	for _, t := range tokens {
		if err := a.printToken(t, query); err != nil {
			return err
		}
	}
	return nil
}

func withModule(u, from *pkcs11.URI) *pkcs11.URI {
	for _, name := range []string{pkcs11.AttrModulePath, pkcs11.AttrModuleName} {
		if v, ok := from.Get(name); ok {
			u = u.With(name, v)
		}
	}
	return u
}

func (a *app) printToken(t pkcs11.Contents, uri func(*pkcs11.URI) string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s%s\n  %s\n", term.Clean(t.Token.String()), tokenState(t.Token), uri(t.Token.URI()))
	if t.Err != nil {
		fmt.Fprintf(w, "  error: %s\n", term.Clean(t.Err.Error()))
	}
	for _, k := range t.Keys {
		fits := "no certificate"
		if k.Certificate >= 0 {
			fits = "certificate " + subject(t.Certificates[k.Certificate])
		}
		fmt.Fprintf(w, "  key\t%s\t%q\tid %s\t%s%s\n    %s\n", k.Algorithm, k.Label, hex.EncodeToString(k.ID), fits, keyState(k), uri(k.URI()))
	}
	for i, c := range t.Certificates {
		fits := "no key seen"
		for _, k := range t.Keys {
			if k.Certificate == i {
				fits = fmt.Sprintf("fits key %q", k.Label)
			}
		}
		if c.Issuer {
			fits = "issuer"
		}
		expires := "unreadable"
		if c.X509 != nil {
			expires = "until " + c.X509.NotAfter.UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(w, "  certificate\t%s\t%q\tid %s\t%s, %s\n    %s\n", subject(c), c.Label, hex.EncodeToString(c.ID), expires, fits, uri(c.URI()))
	}
	if len(t.Keys) == 0 && t.Token.LoginRequired && !t.LoggedIn {
		fmt.Fprintln(w, "  keys may be hidden until login: give --pin")
	}
	return w.Flush()
}

func subject(c pkcs11.Certificate) string {
	if c.X509 == nil {
		return "that does not parse"
	}
	return term.Clean(c.X509.Subject.String())
}

func tokenState(t pkcs11.Token) string {
	switch {
	case t.UserPINLocked:
		return ", PIN locked"
	case t.UserPINFinalTry:
		return ", one PIN try left"
	case t.UserPINCountLow:
		return ", a wrong PIN was given"
	case t.LoginRequired && !t.UserPINInitialized:
		return ", no user PIN set"
	}
	return ""
}

func keyState(k pkcs11.KeyInfo) string {
	var out string
	if k.AlwaysAuthenticate {
		out += ", wants the PIN at every signature"
	}
	if k.Extractable != nil && *k.Extractable {
		out += ", extractable"
	}
	if k.PublicOnly {
		out += ", only its public half was seen"
	}
	return out
}

type tokenJSON struct {
	Label        string       `json:"label"`
	Manufacturer string       `json:"manufacturer"`
	Model        string       `json:"model"`
	Serial       string       `json:"serial"`
	SlotID       uint64       `json:"slotID"`
	URI          string       `json:"uri"`
	Error        string       `json:"error,omitempty"`
	Keys         []objectJSON `json:"keys"`
	Certificates []objectJSON `json:"certificates"`
}

type objectJSON struct {
	Label       string     `json:"label"`
	ID          string     `json:"id"`
	URI         string     `json:"uri"`
	Type        string     `json:"type,omitempty"` // of a key
	Subject     string     `json:"subject,omitempty"`
	NotAfter    *time.Time `json:"notAfter,omitempty"`
	Certificate string     `json:"certificate,omitempty"` // of a key: the URI of what fits it
}

func (a *app) printTokensJSON(tokens []pkcs11.Contents, uri func(*pkcs11.URI) string) error {
	out := []tokenJSON{}
	for _, t := range tokens {
		j := tokenJSON{
			Label: t.Token.Label, Manufacturer: t.Token.Manufacturer, Model: t.Token.Model, Serial: t.Token.Serial,
			SlotID: t.Token.SlotID, URI: uri(t.Token.URI()), Keys: []objectJSON{}, Certificates: []objectJSON{},
		}
		if t.Err != nil {
			j.Error = t.Err.Error()
		}
		for _, c := range t.Certificates {
			o := objectJSON{Label: c.Label, ID: hex.EncodeToString(c.ID), URI: uri(c.URI())}
			if c.X509 != nil {
				o.Subject, o.NotAfter = c.X509.Subject.String(), &c.X509.NotAfter
			}
			j.Certificates = append(j.Certificates, o)
		}
		for _, k := range t.Keys {
			o := objectJSON{Label: k.Label, ID: hex.EncodeToString(k.ID), URI: uri(k.URI()), Type: k.Algorithm}
			if k.Certificate >= 0 {
				o.Certificate = j.Certificates[k.Certificate].URI
			}
			j.Keys = append(j.Keys, o)
		}
		out = append(out, j)
	}
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
