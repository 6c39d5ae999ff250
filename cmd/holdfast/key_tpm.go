package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// tpmKeyFlags say how to make a key in a TPM. The names of what binds it are
// those of systemd-cryptenroll.
type tpmKeyFlags struct {
	tpm           bool
	da            bool
	parent        string
	rsaParent     bool
	pcrs          string
	publicKey     string
	publicKeyPCRs string
}

// forTPMKeys are the flags that only a key in a TPM has a use for.
var forTPMKeys = []string{"tpm-key-auth", "tpm-da", "tpm-parent", "tpm-rsa-parent", "tpm-parent-auth", "tpm-owner-auth",
	"tpm-pcrs", "tpm-public-key", "tpm-public-key-pcrs", "tpm-device"}

func (f *newKeyFlags) addNewTPMKeyFlags(fs *pflag.FlagSet) {
	f.tpmAuth.Noun, f.tpmAuth.Flag = "password", "--tpm-key-auth"
	f.tpmParentAuth.Noun, f.tpmParentAuth.Flag = "password", "--tpm-parent-auth"
	fs.BoolVar(&f.tpm, "tpm", false, "create the key in the TPM; the file is a TSS2 key file")
	fs.Var(&f.tpmAuth, "tpm-key-auth", fmt.Sprintf("give the TPM key a password, of at most 32 bytes and at least %d without --tpm-da; where it comes from", tpm.MinAuth))
	fs.BoolVar(&f.da, "tpm-da", false, "put the password under the TPM's dictionary attack protection: some wrong ones lock all such keys for a while")
	fs.StringVar(&f.parent, "tpm-parent", "owner", "`parent` of the key: owner or endorsement, for the hierarchy's storage key, or handle:0x81… of a storage key")
	fs.BoolVar(&f.rsaParent, "tpm-rsa-parent", false, "take the hierarchy's RSA storage key, in place of its ECC one")
	fs.Var(&f.tpmParentAuth, "tpm-parent-auth", "where the password of the parent comes from (default: it has none)")
	fs.StringVar(&f.pcrs, "tpm-pcrs", "", "bind the key for ever to the present values of these `PCRs`: sha256:0,7")
	fs.StringVar(&f.publicKey, "tpm-public-key", "", "bind the key to the boot states that the holder of this key approves: a `file` with an RSA or EC public key or its certificate")
	fs.StringVar(&f.publicKeyPCRs, "tpm-public-key-pcrs", defaultApprovedPCRs, "the `PCRs` that are to be approved; --tpm-pcrs is for others")
}

// defaultApprovedPCRs is systemd-cryptenroll's: the unified kernel image.
const defaultApprovedPCRs = "sha256:11"

// refuseTPMFlags refuses flags for keys in a TPM where the key is to be made
// elsewhere.
func (f *newKeyFlags) refuseTPMFlags(cmd *cobra.Command) error {
	for _, name := range forTPMKeys {
		if cmd.Flags().Changed(name) {
			return usageError(cmd, signer.WithHint(fmt.Errorf("--%s is for keys in a TPM, and this one is to be made elsewhere", name),
				"add --tpm, or name a TPM's handle: --private-key handle:0x81000010"))
		}
	}
	return nil
}

// createInTPM makes a key file, or a key at a persistent handle.
func (f *newKeyFlags) createInTPM(cmd *cobra.Command, a *app, ref signer.Reference) (*newKey, error) {
	o, err := f.tpmCreateOptions(cmd, ref)
	if err != nil {
		return nil, usageError(cmd, err)
	}
	want, err := f.wantedBinding(cmd)
	if err != nil {
		return nil, err
	}
	ctx := cmd.Context()
	if ref.Scheme == signer.SchemeFile {
		for _, path := range []string{ref.Value, policy.SnapshotPath(ref.Value)} {
			if err := mustNotExist(path); err != nil {
				return nil, err
			}
		}
	}
	device, err := a.openTPM(ctx, &f.identityFlags)
	if err != nil {
		return nil, identityError(err)
	}
	bound, err := want.read(ctx, a, device)
	if err != nil {
		return nil, identityError(err)
	}
	if f.tpmAuth.Given() {
		if o.Auth, err = f.newTPMAuth(ctx, ref); err != nil {
			return nil, err
		}
		defer o.Auth.Wipe()
	}
	if err := bound.apply(&o); err != nil {
		return nil, err
	}
	file, err := tpm.CreateKey(ctx, device, o)
	if err != nil {
		return nil, identityError(err)
	}
	return f.keep(ctx, device, ref, file, bound, o)
}

// tpmCreateOptions reads the flags, but for the password and the policy.
func (f *newKeyFlags) tpmCreateOptions(cmd *cobra.Command, ref signer.Reference) (o tpm.CreateOptions, err error) {
	fs := cmd.Flags()
	if o.Algorithm, err = tpmAlgorithm(f.algorithm); err != nil {
		return o, err
	}
	persistent := ref.Scheme == signer.SchemeHandle
	switch {
	case ref.Scheme == signer.SchemePKCS11:
		return o, errors.New("--tpm is for a key file: give its name with --private-key, or a TPM's handle")
	case fs.Changed("passphrase"):
		return o, errors.New("--passphrase is for key files without a TPM; a TPM key's password comes from --tpm-key-auth")
	case f.alwaysAuth:
		return o, errors.New("--always-authenticate is for keys on PKCS#11 tokens")
	case f.da && !f.tpmAuth.Given():
		return o, errors.New("--tpm-da protects a password, and the key is to have none: give --tpm-key-auth")
	case fs.Changed("tpm-public-key-pcrs") && f.publicKey == "":
		return o, errors.New("--tpm-public-key-pcrs are those that a key approves: name that with --tpm-public-key")
	case persistent && (f.pcrs != "" || f.publicKey != ""):
		return o, signer.WithHint(errors.New("a persistent key has no room for its policy, and cannot be used without it"),
			"create it as a key file: --tpm --private-key device.tss2.pem; a persistent parent (--tpm-parent handle:0x81000001) makes that as fast")
	}
	if persistent {
		if o.Persistent, err = tpm.ParseHandle(ref.Value); err != nil {
			return o, err
		}
	}
	if o.Parent, err = tpmParent(f.parent); err != nil {
		return o, err
	}
	o.RSAParent, o.DA = f.rsaParent, f.da
	if byHandle := o.Parent != tpm2.TPMRHOwner && o.Parent != tpm2.TPMRHEndorsement; !byHandle && f.tpmParentAuth.Given() {
		return o, errors.New("--tpm-parent-auth is for a parent with a handle; the password of the hierarchy comes from --tpm-owner-auth")
	} else if byHandle && f.rsaParent {
		return o, errors.New("--tpm-rsa-parent is for a hierarchy; a parent with a handle is what it is")
	}
	if f.tpmParentAuth.Given() {
		o.ParentAuth = f.tpmParentAuth.Read
	}
	if f.tpmOwnerAuth.Given() {
		o.OwnerAuth = f.tpmOwnerAuth.Read
	}
	return o, nil
}

// newTPMAuth asks for the key's password to be.
func (f *newKeyFlags) newTPMAuth(ctx context.Context, ref signer.Reference) (signer.Secret, error) {
	auth, err := f.tpmAuth.ReadNew(ctx, ref.String())
	if err != nil {
		return auth, identityError(err)
	}
	if n := len(auth.Reveal()); n < tpm.MinAuth && !f.da {
		auth.Wipe()
		return signer.Secret{}, identityError(signer.WithHint(
			fmt.Errorf("password for %s: %d bytes can be guessed, and nothing would stop the guessing", ref, n),
			fmt.Sprintf("add --tpm-da for a PIN or a word, or take %d random bytes or more", tpm.MinAuth)))
	}
	return auth, nil
}

// keep writes the key file, and what belongs beside it: all or nothing.
func (f *newKeyFlags) keep(ctx context.Context, d *tpm.Device, ref signer.Reference, file *tpm.KeyFile, bound *binding, o tpm.CreateOptions) (*newKey, error) {
	use := tpm.Options{Name: ref.String(), ParentAuth: o.ParentAuth, OwnerAuth: o.OwnerAuth, Inputs: policy.Inputs{Expected: bound.snapshot}}
	if auth := signer.NewSecret(o.Auth.Reveal()); !auth.Empty() {
		use.Auth = func(context.Context, string) (signer.Secret, error) { return auth, nil }
	}
	if ref.Scheme == signer.SchemeHandle {
		key, err := tpm.OpenHandle(ctx, d, ref.Value, use)
		if err != nil {
			return nil, identityError(err)
		}
		return &newKey{key: key, where: "the TPM at " + handleRef(o.Persistent)}, nil
	}
	key, err := tpm.OpenKey(ctx, d, file, use)
	if err != nil {
		return nil, identityError(err)
	}
	text, err := file.PEM()
	if err == nil {
		err = software.WriteKeyFile(ref.Value, text)
	}
	if err != nil {
		closeKey(key)
		return nil, err
	}
	undo := func() { _ = os.Remove(ref.Value) }
	if bound.snapshot != nil {
		if err := policy.WriteSnapshot(ref.Value, bound.snapshot); err != nil {
			closeKey(key)
			undo()
			return nil, fmt.Errorf("writing the PCR values that the key is bound to: %w", err)
		}
		undo = func() { _, _ = os.Remove(ref.Value), os.Remove(policy.SnapshotPath(ref.Value)) }
	}
	return &newKey{key: key, where: "the TPM, with key file " + ref.Value, undo: undo, notes: bound.notes(ref.Value)}, nil
}

// tpmParent reads --tpm-parent. Keys below the null hierarchy end with the next
// reset, and the platform's hierarchy is closed once the machine runs.
func tpmParent(text string) (tpm2.TPMHandle, error) {
	switch strings.ToLower(text) {
	case "owner", "o":
		return tpm2.TPMRHOwner, nil
	case "endorsement", "e":
		return tpm2.TPMRHEndorsement, nil
	}
	h, err := tpm.ParseHandle(text)
	if err != nil {
		return 0, signer.WithHint(fmt.Errorf("--tpm-parent %q is neither owner nor endorsement nor the handle of a persistent key", text),
			"holdfast list --tpm lists those")
	}
	return h, nil
}

// tpmAlgorithm reads --type for a TPM, in any case and punctuation.
func tpmAlgorithm(name string) (tpm.Algorithm, error) {
	plain := strings.NewReplacer("-", "", "_", "", ":", "", " ", "").Replace(strings.ToLower(name))
	switch plain {
	case "rsa2048":
		return tpm.RSA2048, nil
	case "rsa3072":
		return tpm.RSA3072, nil
	case "rsa4096":
		return tpm.RSA4096, nil
	}
	for _, curve := range []struct {
		names []string
		is    tpm.Algorithm
	}{
		{[]string{"p256", "prime256v1", "secp256r1"}, tpm.P256},
		{[]string{"p384", "secp384r1"}, tpm.P384},
		{[]string{"p521", "secp521r1"}, tpm.P521},
	} {
		for _, prefix := range []string{"", "ec", "ecc", "ecdsa", "nist", "ecnist"} {
			if bare, ok := strings.CutPrefix(plain, prefix); ok && slices.Contains(curve.names, bare) {
				return curve.is, nil
			}
		}
	}
	if strings.HasPrefix(plain, "mldsa") {
		return "", fmt.Errorf("--type %s: %w: TPMs have no ML-DSA; give ec-p256, ec-p384, ec-p521, rsa-2048, rsa-3072 or rsa-4096", name, signer.ErrUnsupportedKey)
	}
	return "", fmt.Errorf("--type %s: %w: a TPM makes ec-p256, ec-p384, ec-p521, rsa-2048, rsa-3072 and rsa-4096, if its maker saw fit", name, signer.ErrUnsupportedKey)
}
