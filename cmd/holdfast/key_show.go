package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func (a *app) keyShow() *cobra.Command {
	var f identityFlags
	var asJSON, public bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show where a private key lives, what binds it and what would break it",
		Long: `Shows of a private key its type, where it lives and whether it can leave there. Of
a key in a TPM also what its use takes: its password, and its policy, step by step,
with what of it holds at present, and which PCR moved.

The key signs nothing. Its password is not asked for, and no other is either
unless a flag says where that comes from: nothing counts against a lock-out. Of a
TSS2 key file much is said without its TPM.

  holdfast key show --private-key device.tss2.pem
  holdfast key show --private-key handle:0x81000010 --json
  holdfast key show --private-key approver.key --public-key > approver.pub`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ref := signer.ParseReference(f.privateKey)
			switch {
			case ref.IsZero():
				return usageError(cmd, errors.New("no key given: give --private-key"))
			case asJSON && public:
				return usageError(cmd, errors.New("--json and --public-key do not go together"))
			}
			if err := f.checkFlags(cmd); err != nil {
				return err
			}
			a.setDebug(f.debug)
			r, err := a.describeKey(cmd.Context(), ref, &f)
			if err != nil {
				return identityError(err)
			}
			switch {
			case public && r.public == nil:
				return identityError(signer.WithHint(fmt.Errorf("%s: %w", ref, signer.ErrPassphraseRequired), "say with --passphrase where it comes from"))
			case public:
				spki, err := signer.MarshalPublicKey(r.public)
				if err != nil {
					return identityError(err)
				}
				return pem.Encode(a.stdout, &pem.Block{Type: "PUBLIC KEY", Bytes: spki})
			case asJSON:
				e := json.NewEncoder(a.stdout)
				e.SetIndent("", "  ")
				return e.Encode(r)
			}
			return r.print(a.stdout)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.privateKey, "private-key", "", "the `key`: a file, a TPM key file (TSS2), a pkcs11: URI, or handle:0x… of a TPM key")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	fs.BoolVar(&public, "public-key", false, "print the public key in PEM, and nothing else")
	f.addFileFlags(fs)
	f.addTokenFlags(fs)
	f.addTPMLookFlags(fs)
	f.addDebugFlag(fs)
	return cmd
}

// A keyReport is what "key show" knows of a key.
type keyReport struct {
	PrivateKey  string         `json:"privateKey"`
	Type        string         `json:"type,omitempty"`
	Fingerprint string         `json:"publicKeySHA256,omitempty"` // of the SubjectPublicKeyInfo
	LivesIn     string         `json:"livesIn"`                   // "file", "token" or "tpm"
	CanLeave    *bool          `json:"canLeave,omitempty"`
	Encrypted   *bool          `json:"encrypted,omitempty"` // of a file
	Token       *tokenKeyState `json:"token,omitempty"`
	TPM         *tpmKeyState   `json:"tpm,omitempty"`
	Breaks      []string       `json:"breaks"`

	public crypto.PublicKey
}

// A tokenKeyState is what a PKCS#11 token says of a key.
type tokenKeyState struct {
	Token              string `json:"token"`
	URI                string `json:"uri"`
	AlwaysAuthenticate bool   `json:"alwaysAuthenticate"`
	PINLocked          bool   `json:"pinLocked"`
}

func (a *app) describeKey(ctx context.Context, ref signer.Reference, f *identityFlags) (*keyReport, error) {
	r := &keyReport{PrivateKey: ref.String()}
	var err error
	switch ref.Scheme {
	case signer.SchemeHandle:
		err = r.describeHandle(ctx, a, ref, f)
	case signer.SchemePKCS11:
		err = r.describeTokenKey(ctx, a, ref, f)
	default:
		err = r.describeFile(ctx, a, ref, f)
	}
	if err != nil {
		return nil, err
	}
	if r.public != nil {
		r.Type, r.Fingerprint = signer.DescribeKey(r.public), fingerprint(r.public)
	}
	return r, nil
}

// fingerprint is the SHA-256 of the SubjectPublicKeyInfo.
func fingerprint(pub crypto.PublicKey) string {
	spki, err := signer.MarshalPublicKey(pub)
	if err != nil {
		return "unknown"
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// describeFile describes a key in a file, or the TPM's key that a file is of.
// An encrypted key is opened only if a passphrase is given.
func (r *keyReport) describeFile(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) error {
	o := a.fileOptions(f)
	if !f.passphrase.Given() && f.pkcs8Password == "" {
		o.Passphrase = nil
	}
	encrypted := false
	if ask := o.Passphrase; ask != nil {
		o.Passphrase = func(ctx context.Context, object string) (signer.Secret, error) {
			encrypted = true
			return ask(ctx, object)
		}
	}
	c, err := software.ReadFile(ctx, ref.Value, o)
	if o.Passphrase == nil && errors.Is(err, signer.ErrPassphraseRequired) {
		encrypted, err = true, nil
	}
	if err != nil {
		return err
	}
	if !encrypted && len(c.Keys) == 0 {
		file, err := tpmKeyFile(ref, c.Other)
		if err != nil {
			return err
		}
		if file != nil {
			return r.describeTPMFile(ctx, a, ref, file, f)
		}
	}
	yes := true
	r.LivesIn, r.CanLeave, r.Encrypted = "file", &yes, &encrypted
	r.Breaks = []string{"someone else reads the file, who can then use the key anywhere"}
	if encrypted {
		r.Breaks = []string{"someone else reads the file and knows the passphrase, who can then use the key anywhere", "the passphrase is forgotten"}
	}
	if c == nil || len(c.Keys) == 0 && encrypted {
		return nil
	}
	key, err := c.Key()
	if err != nil {
		return err
	}
	r.public = key.Public()
	return nil
}

// describeTokenKey describes what the token shows without a login, or with one
// if --pin is given.
func (r *keyReport) describeTokenKey(ctx context.Context, a *app, ref signer.Reference, f *identityFlags) error {
	host, uri, err := a.openModule(ctx, ref, f)
	if err != nil {
		return err
	}
	o := f.tokenOptions()
	if !f.pin.Given() {
		o.PIN, o.KeyPIN = nil, nil
	}
	tokens, err := host.List(ctx, uri, o)
	if err != nil {
		return err
	}
	found := 0
	for _, t := range tokens {
		for _, k := range t.Keys {
			found++
			r.public, r.LivesIn = k.Public, "token"
			r.Type = k.Algorithm
			r.CanLeave = k.Extractable
			r.Token = &tokenKeyState{Token: t.Token.String(), URI: withModule(k.URI(), uri).String(), AlwaysAuthenticate: k.AlwaysAuthenticate, PINLocked: t.Token.UserPINLocked}
		}
	}
	switch found {
	case 0:
		return signer.WithHint(fmt.Errorf("%s: %w", ref, signer.ErrKeyNotFound), "the token may hide it until login: give --pin; holdfast list shows what the tokens hold")
	case 1:
		r.Breaks = []string{"the token is lost, initialized anew, or its PIN locked"}
		return nil
	}
	return signer.WithHint(fmt.Errorf("%s: %w: it fits %d keys", ref, signer.ErrAmbiguous, found), "holdfast list shows a URI for each")
}
