package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/atomicfile"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/software"
	"github.com/holdfast-iam/holdfast/tpm"
)

func (a *app) certificate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certificate",
		Short: "Put certificates where their keys are",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.certificateInstall())
	return cmd
}

func (a *app) certificateInstall() *cobra.Command {
	var f identityFlags
	var i installation
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Store a certificate beside its key: on a PKCS#11 token, in a TPM or in a file",
		Long: `Stores a certificate after checking that it and its private key belong together.
What is there stays there, unless --replace is given.

On the PKCS#11 token that holds the key, under the key's label and id:

  holdfast certificate install --certificate device.crt --private-key 'pkcs11:token=edge;object=device'

In a TPM's NV index, which the owner may write and everyone may read; after
--certificate, handle:0x01800001 then stands for it. Indexes from 0x01800000 to
0x01bfffff are the owner's:

  holdfast certificate install --certificate device.crt --private-key device.tss2.pem --to handle:0x01800001

In a file, which is replaced in one step:

  holdfast certificate install --certificate new.crt --private-key device.tss2.pem --to device.crt --replace`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.certificate == "" || f.privateKey == "" {
				return usageError(cmd, errors.New("give the certificate with --certificate and its key with --private-key"))
			}
			if err := f.checkFlags(cmd); err != nil {
				return err
			}
			if err := i.check(cmd, signer.ParseReference(f.privateKey)); err != nil {
				return err
			}
			a.setDebug(f.debug)
			ctx := cmd.Context()
			id, err := a.openPair(ctx, &f)
			if err != nil {
				return err
			}
			defer id.Close()
			switch i.to.Scheme {
			case signer.SchemeHandle:
				return i.intoNV(ctx, a, &f, id)
			case signer.SchemeFile:
				return i.intoFile(ctx, a, id)
			}
			return i.ontoToken(ctx, a, &f, id)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.certificate, "certificate", "", "the certificate: a `file`")
	fs.StringVar(&f.privateKey, "private-key", "", "its `key`: a pkcs11: URI, a key file, a TPM key file or handle:0x81… of a TPM")
	fs.StringVar(&f.intermediates, "intermediates", "", "intermediate CA certificates to store after it: a `file`")
	fs.StringVar(&i.where, "to", "", "`where` to store it: handle:0x018… of a TPM NV index, or a file (default: the key's token)")
	fs.BoolVar(&i.replace, "replace", false, "take the place of what is there")
	f.addFileFlags(fs)
	f.addTokenFlags(fs)
	f.addTPMDeviceFlag(fs)
	f.addTPMOwnerFlag(fs)
	f.addDebugFlag(fs)
	return cmd
}

// An installation says where a certificate goes.
type installation struct {
	where   string
	replace bool

	key, to signer.Reference
}

func (i *installation) check(cmd *cobra.Command, key signer.Reference) error {
	i.key, i.to = key, signer.ParseReference(i.where)
	onToken := key.Scheme == signer.SchemePKCS11
	switch {
	case i.to.IsZero() && !onToken:
		return usageError(cmd, fmt.Errorf("--private-key %s: only a PKCS#11 token has a place for certificates: say where to put this one with --to", key))
	case i.to.IsZero():
		if cmd.Flags().Changed("intermediates") {
			return usageError(cmd, errors.New("--intermediates goes with --to: a token keeps the key's own certificate"))
		}
		i.to = key
	case i.to.Scheme == signer.SchemePKCS11:
		return usageError(cmd, errors.New("--to is a TPM's NV index or a file; leave it out for the token that holds the key"))
	case i.to.Scheme == signer.SchemeHandle:
		if _, err := tpm.ParseNVIndex(i.where); err != nil {
			return usageError(cmd, fmt.Errorf("--to: %w", err))
		}
	default:
		if err := noBareHandle(cmd, "--to", i.to); err != nil || i.replace {
			return err
		}
		return notThere(i.to.Value)
	}
	return nil
}

func notThere(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return signer.WithHint(fmt.Errorf("%s: %w, and is not overwritten", path, fs.ErrExist), "replace it with --replace, or name another file")
	}
	return nil
}

// openPair joins certificate and key for a check that they belong together. Of a
// key in a TPM the public half will do, for which nobody asks for a password.
func (a *app) openPair(ctx context.Context, f *identityFlags) (*signer.Identity, error) {
	keyRef := signer.ParseReference(f.privateKey)
	pub, err := a.tpmPublicKey(ctx, keyRef, f)
	if err != nil {
		return nil, identityError(err)
	}
	if pub == nil {
		return a.openIdentity(ctx, f)
	}
	certRef := signer.ParseReference(f.certificate)
	certs, err := a.readCertificates(ctx, certRef, f)
	if err != nil {
		return nil, err
	}
	id, err := a.join(ctx, publicHalf{pub}, certs, certRef, keyRef, f)
	return id, identityError(err)
}

// tpmPublicKey returns the public half of a key in a TPM, nil if ref is none.
func (a *app) tpmPublicKey(ctx context.Context, ref signer.Reference, f *identityFlags) (crypto.PublicKey, error) {
	if ref.Scheme == signer.SchemeHandle {
		area, _, err := a.persistentKey(ctx, ref, f)
		if err != nil {
			return nil, err
		}
		return tpm2.Pub(*area)
	}
	if ref.Scheme != signer.SchemeFile {
		return nil, nil
	}
	text, err := readSmallFile(ref.Value)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	file := tpmKeyIn(text)
	if file == nil {
		return nil, nil // what else it is, its reader says
	}
	return file.PublicKey(), nil
}

// A publicHalf is a key that is not at hand.
type publicHalf struct{ pub crypto.PublicKey }

func (k publicHalf) Public() crypto.PublicKey { return k.pub }

func (publicHalf) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// chain is what is stored: the certificate first.
func chain(id *signer.Identity) []*x509.Certificate {
	return append([]*x509.Certificate{id.Certificate()}, id.Chain()...)
}

func (i *installation) intoNV(ctx context.Context, a *app, f *identityFlags, id *signer.Identity) error {
	index, err := tpm.ParseNVIndex(i.where)
	if err != nil {
		return err
	}
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return identityError(err)
	}
	o := tpm.NVOptions{OwnerAuth: f.tpmOptions(a).OwnerAuth, Overwrite: i.replace}
	if err := tpm.WriteCertificates(ctx, device, index, chain(id), o); err != nil {
		if errors.Is(err, tpm.ErrHandleInUse) {
			err = signer.WithHint(err, "replace what is there with --replace, or choose another index")
		}
		return identityError(err)
	}
	a.say.Say("stored %q%s as %s", id.Certificate().Subject, above(id), handleRef(index))
	return nil
}

func above(id *signer.Identity) string {
	switch n := len(id.Chain()); n {
	case 0:
		return ""
	case 1:
		return " and an intermediate certificate"
	default:
		return fmt.Sprintf(" and %d intermediate certificates", n)
	}
}

func (i *installation) intoFile(ctx context.Context, a *app, id *signer.Identity) error {
	text := enroll.EncodePEM(chain(id)...)
	path := i.to.Value
	_, err := os.Lstat(path)
	if err == nil && i.replace {
		if err = onlyCertificates(ctx, path); err == nil {
			err = atomicfile.Replace(path, text)
		}
	} else {
		err = a.writePublic(path, text)
	}
	if err != nil {
		return err
	}
	a.say.Say("stored %q%s in %s", id.Certificate().Subject, above(id), path)
	return nil
}

// onlyCertificates refuses to have a file replaced that holds anything else, such
// as the key, which there may be no other copy of.
func onlyCertificates(ctx context.Context, path string) error {
	text, err := readSmallFile(path)
	if err != nil || len(text) == 0 {
		return err
	}
	defer clear(text)
	c, err := software.Parse(ctx, path, text, software.Options{})
	if err == nil && len(c.Certificates) > 0 && len(c.Keys)+len(c.Other) == 0 {
		return nil
	}
	return identityError(signer.WithHint(fmt.Errorf("%s: holds more than certificates, and is not replaced", path), "name another file with --to, or move this one away"))
}

func (i *installation) ontoToken(ctx context.Context, a *app, f *identityFlags, id *signer.Identity) error {
	host, uri, err := a.openModule(ctx, i.key, f)
	if err != nil {
		return identityError(err)
	}
	o := f.tokenOptions()
	o.Replace = i.replace
	stored, err := host.ImportCertificate(ctx, uri, id.Certificate(), o)
	if err != nil {
		return identityError(err)
	}
	a.say.Say("stored %q as %s", id.Certificate().Subject, withModule(stored.URI(), uri))
	return nil
}
