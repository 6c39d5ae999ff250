package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func (a *app) key() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Create private keys",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.keyCreate())
	return cmd
}

func (a *app) keyCreate() *cobra.Command {
	var f newKeyFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a private key in a file or on a PKCS#11 token",
		Long: `Creates a private key: in a file, as PKCS#8 PEM that only its owner may read, or
on a PKCS#11 token, which never gives it away (sensitive, not extractable). What
exists is never overwritten.

  holdfast key create --private-key device.key
  holdfast key create --private-key device.key --type rsa-2048 --passphrase prompt
  holdfast key create --private-key 'pkcs11:token=edge;object=device'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			made, err := f.create(cmd, a)
			if err != nil {
				return err
			}
			defer closeKey(made.key)
			a.say.Say("created %s key in %s", signer.DescribeKey(made.key.Public()), made.where)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// newKeyFlags say which key to make, where, and how to protect it.
type newKeyFlags struct {
	identityFlags // of which privateKey and the token's
	algorithm     string
	alwaysAuth    bool
}

func (f *newKeyFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.privateKey, "private-key", "", "where to create the `key`: a file, or a pkcs11: URI with the token and the label (object=)")
	fs.StringVar(&f.algorithm, "type", "ec-p256", "`type` of key: "+strings.Join(software.Algorithms(), ", ")+"; tokens have no ML-DSA")
	fs.Var(&f.passphrase, "passphrase", "encrypt the key's file; its passphrase comes from: "+term.Sources)
	fs.BoolVar(&f.alwaysAuth, "always-authenticate", false, "make the token want the PIN at every signature")
	f.addTokenFlags(fs)
	fs.BoolVar(&f.debug, "debug", false, "say on stderr what is done; secrets are left out")
}

// A newKey is a key just made.
type newKey struct {
	key   crypto.Signer
	where string
	undo  func() // takes it back; nil where that cannot be done
}

// create makes the key where --private-key says.
func (f *newKeyFlags) create(cmd *cobra.Command, a *app) (*newKey, error) {
	a.setDebug(f.debug)
	ref := signer.ParseReference(f.privateKey)
	switch {
	case ref.IsZero():
		return nil, usageError(cmd, errors.New("no place for the key: give --private-key"))
	case ref.Scheme == signer.SchemeFile:
		return f.createFile(cmd, ref.Value)
	case ref.Scheme == signer.SchemePKCS11:
		return f.createOnToken(cmd, a, ref)
	}
	return nil, usageError(cmd, fmt.Errorf("--private-key %s: keys are created in files and on PKCS#11 tokens", ref))
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
			return nil, err
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
	return &newKey{key, path, func() { _ = os.Remove(path) }}, nil
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
	return &newKey{key, withModule(key.URI(), uri).String(), nil}, nil
}

// mustNotExist says so before any work is done; the write itself checks again.
func mustNotExist(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return signer.WithHint(fmt.Errorf("%s: %w, and is not overwritten", path, fs.ErrExist), "move it away, or name another file")
	}
	return nil
}
