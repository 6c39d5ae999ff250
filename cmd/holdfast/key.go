package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func (a *app) key() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Create private keys, see what binds them, approve boot states",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.keyCreate(), a.keyShow(), a.keyPCRs(), a.keyApprove(), a.keyReseal())
	return cmd
}

func (a *app) keyCreate() *cobra.Command {
	var f newKeyFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a private key in a file, in a TPM or on a PKCS#11 token",
		Long: `Creates a private key, where no one else can use it. What exists is never
overwritten.

In a file, as PKCS#8 PEM that only its owner may read:

  holdfast key create --private-key device.key
  holdfast key create --private-key device.key --type rsa-2048 --passphrase prompt

On a PKCS#11 token, which never gives it away (sensitive, not extractable):

  holdfast key create --private-key 'pkcs11:token=edge;object=device'

In a TPM, which it cannot leave: as a TSS2 key file, which is of use to that TPM
only, or at a persistent handle:

  holdfast key create --private-key device.tss2.pem --tpm
  holdfast key create --private-key handle:0x81000010
  holdfast key create --private-key device.tss2.pem --tpm --tpm-key-auth prompt --tpm-da

A key file can also bind the key to what booted. To PCR values, for ever: new
firmware ends the key. Or to whatever its approver signs, see "key approve" and
"key reseal": new firmware needs a new signature, and the key goes on.

  holdfast key create --private-key device.tss2.pem --tpm --tpm-pcrs sha256:7
  holdfast key create --private-key device.tss2.pem --tpm --tpm-public-key approver.pub --tpm-public-key-pcrs sha256:0,7`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			made, err := f.create(cmd, a)
			if err != nil {
				return err
			}
			defer closeKey(made.key)
			a.say.Say("created %s key in %s", signer.DescribeKey(made.key.Public()), made.where)
			for _, more := range made.notes {
				a.say.Say("%s", more)
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// newKeyFlags say which key to make, where, and how to protect it.
type newKeyFlags struct {
	identityFlags // of which privateKey, the token's and the TPM's
	tpmKeyFlags
	algorithm  string
	alwaysAuth bool
}

func (f *newKeyFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.privateKey, "private-key", "", "where to create the `key`: a file, a pkcs11: URI with the token and the label (object=), or handle:0x81… of a TPM")
	fs.StringVar(&f.algorithm, "type", "ec-p256", "`type` of key: "+strings.Join(software.Algorithms(), ", ")+"; TPMs and tokens have no ML-DSA")
	fs.Var(&f.passphrase, "passphrase", "encrypt the key's file; where its passphrase comes from")
	fs.BoolVar(&f.alwaysAuth, "always-authenticate", false, "make the token want the PIN at every signature")
	f.addTokenFlags(fs)
	f.addReusePINFlag(fs)
	f.addTPMDeviceFlag(fs)
	f.addTPMOwnerFlag(fs)
	f.addNewTPMKeyFlags(fs)
	f.addDebugFlag(fs)
}

// A newKey is a key just made.
type newKey struct {
	key   crypto.Signer
	where string
	undo  func() // takes it back; nil where that cannot be done
	notes []string
}

// create makes the key where --private-key says.
func (f *newKeyFlags) create(cmd *cobra.Command, a *app) (*newKey, error) {
	a.setDebug(f.debug)
	ref := signer.ParseReference(f.privateKey)
	if ref.IsZero() {
		return nil, usageError(cmd, errors.New("no place for the key: give --private-key"))
	}
	if err := noBareHandle(cmd, "--private-key", ref); err != nil {
		return nil, err
	}
	if f.tpm || ref.Scheme == signer.SchemeHandle {
		return f.createInTPM(cmd, a, ref)
	}
	if err := f.refuseTPMFlags(cmd); err != nil {
		return nil, err
	}
	if ref.Scheme == signer.SchemePKCS11 {
		return f.createOnToken(cmd, a, ref)
	}
	return f.createFile(cmd, ref.Value)
}

func (f *newKeyFlags) createFile(cmd *cobra.Command, path string) (*newKey, error) {
	if f.alwaysAuth {
		return nil, usageError(cmd, errors.New("--always-authenticate is for keys on PKCS#11 tokens"))
	}
	if err := mustNotExist(path); err != nil {
		return nil, err
	}
	key, err := software.Generate(f.algorithm)
	if err != nil {
		return nil, usageError(cmd, err)
	}
	var passphrase signer.Secret
	if cmd.Flags().Changed("passphrase") {
		if passphrase, err = f.passphrase.ReadNew(cmd.Context(), path); err != nil {
			return nil, identityError(err)
		}
		defer passphrase.Wipe()
	}
	text, err := software.MarshalPrivateKey(key, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	if err := software.WriteKeyFile(path, text); err != nil {
		return nil, err
	}
	return &newKey{key: key, where: path, undo: func() { _ = os.Remove(path) }}, nil
}

func (f *newKeyFlags) createOnToken(cmd *cobra.Command, a *app, ref signer.Reference) (*newKey, error) {
	if cmd.Flags().Changed("passphrase") {
		return nil, usageError(cmd, errors.New("--passphrase is for key files; a token's PIN comes from --pin"))
	}
	ctx := cmd.Context()
	host, uri, err := a.openModule(ctx, ref, &f.identityFlags)
	if err != nil {
		return nil, identityError(err)
	}
	o := f.tokenOptions()
	o.AlwaysAuthenticate = f.alwaysAuth
	key, err := host.GenerateKey(ctx, uri, f.algorithm, o)
	if err != nil {
		return nil, identityError(err)
	}
	return &newKey{key: key, where: withModule(key.URI(), uri).String()}, nil
}

// noBareHandle refuses to create a file that bears a TPM handle's name.
func noBareHandle(cmd *cobra.Command, flag string, ref signer.Reference) error {
	digits, ok := strings.CutPrefix(strings.ToLower(ref.Value), "0x")
	if _, err := strconv.ParseUint(digits, 16, 32); !ok || err != nil || len(digits) < 7 {
		return nil
	}
	return usageError(cmd, signer.WithHint(fmt.Errorf("%s %s would be a file", flag, ref.Value),
		fmt.Sprintf("a TPM's handle is written handle:%s; the file ./%s", ref.Value, ref.Value)))
}

// mustNotExist says so before any work is done; the write itself checks again.
// The path "" is stdout.
func mustNotExist(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return signer.WithHint(fmt.Errorf("%s: %w, and is not overwritten", path, fs.ErrExist), "move it away, or name another file")
	}
	return nil
}
