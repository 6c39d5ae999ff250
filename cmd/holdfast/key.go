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
		Short: "Create a private key in a file",
		Long: `Creates a private key and writes it as PKCS#8 PEM, readable by its owner only.
An existing file is never overwritten.

  holdfast key create --private-key device.key
  holdfast key create --private-key device.key --type rsa-2048 --passphrase prompt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := f.create(cmd)
			if err != nil {
				return err
			}
			a.say.Say("created %s key in %s", signer.DescribeKey(key.Public()), f.path())
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// newKeyFlags say which key to make, where, and how to protect it.
type newKeyFlags struct {
	privateKey string
	algorithm  string
	passphrase term.Source
}

func (f *newKeyFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.privateKey, "private-key", "", "`file` to create; it must not exist")
	fs.StringVar(&f.algorithm, "type", "ec-p256", "`type` of key: "+strings.Join(software.Algorithms(), ", "))
	fs.Var(&f.passphrase, "passphrase", "encrypt the key; its passphrase comes from: "+term.Sources)
}

func (f *newKeyFlags) path() string { return signer.ParseReference(f.privateKey).Value }

// create makes the key and its file.
func (f *newKeyFlags) create(cmd *cobra.Command) (crypto.Signer, error) {
	ref := signer.ParseReference(f.privateKey)
	if ref.IsZero() {
		return nil, usageError(cmd, errors.New("no place for the key: give --private-key FILE"))
	}
	if ref.Scheme != signer.SchemeFile {
		return nil, usageError(cmd, fmt.Errorf("--private-key %s: keys are created in files only", ref))
	}
	if err := mustNotExist(ref.Value); err != nil {
		return nil, err
	}
	key, err := software.Generate(f.algorithm)
	if err != nil {
		return nil, usageError(cmd, err)
	}
	var passphrase signer.Secret
	if cmd.Flags().Changed("passphrase") {
		if passphrase, err = f.passphrase.ReadNew(cmd.Context(), ref.Value); err != nil {
			return nil, err
		}
		defer passphrase.Wipe()
	}
	text, err := software.MarshalPrivateKey(key, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return key, software.WriteKeyFile(ref.Value, text)
}

// mustNotExist says so before any work is done; the write itself checks again.
func mustNotExist(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return signer.WithHint(fmt.Errorf("%s: %w, and is not overwritten", path, fs.ErrExist), "move it away, or name another file")
	}
	return nil
}
