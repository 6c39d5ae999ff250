package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
)

// identityFlags say which key and certificate to use, in the words of
// aws_signing_helper.
type identityFlags struct {
	certificate   string
	privateKey    string
	intermediates string

	certSelector    string
	systemStoreName string
	latestExpiring  bool

	pkcs11Lib        string
	reusePIN         bool
	pin              term.Source
	finalTry         bool
	tpmKeyPassword   string
	noTPMKeyPassword bool
	tpmAuth          term.Source
	tpmParentAuth    term.Source
	tpmOwnerAuth     term.Source
	tpmDevice        string
	pcrSignature     string

	pkcs8Password string
	passphrase    term.Source

	debug bool
}

func (f *identityFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.certificate, "certificate", "", "end-entity `certificate`: a PEM, DER or PKCS#12 file, a pkcs11: URI, or handle:0x… of a TPM NV index")
	fs.StringVar(&f.privateKey, "private-key", "", "private `key`: a PEM, DER or PKCS#12 file, a TPM key file (TSS2), a pkcs11: URI, or handle:0x… of a TPM key; absent, it is looked for where --certificate is")
	fs.StringVar(&f.intermediates, "intermediates", "", "intermediate CA certificates, in any order: a `file`, a pkcs11: URI, or handle:0x… of a TPM NV index")
	f.addKeyFlags(fs)
	f.addStoreFlags(fs)
	fs.BoolVar(&f.latestExpiring, "use-latest-expiring-certificate", false, "of several matching certificates take the one that expires last")
}

// addKeyFlags adds what using a private key needs.
func (f *identityFlags) addKeyFlags(fs *pflag.FlagSet) {
	f.addTokenFlags(fs)
	f.addReusePINFlag(fs)
	f.addTPMFlags(fs)
	f.addFileFlags(fs)
	f.addDebugFlag(fs)
}

// addFileFlags adds what opening an encrypted key file needs.
func (f *identityFlags) addFileFlags(fs *pflag.FlagSet) {
	fs.Var(&f.passphrase, "passphrase", "where the key's passphrase comes from (default prompt)")
	fs.StringVar(&f.pkcs8Password, "pkcs8-password", "", "`passphrase` itself (visible to every user of this machine; prefer --passphrase)")
}

func (f *identityFlags) addDebugFlag(fs *pflag.FlagSet) {
	fs.BoolVar(&f.debug, "debug", false, "say on stderr what is done; secrets are left out")
}

// addTokenFlags adds what reading a PKCS#11 token needs.
func (f *identityFlags) addTokenFlags(fs *pflag.FlagSet) {
	f.pin.Noun, f.pin.Flag = "PIN", "--pin"
	fs.StringVar(&f.pkcs11Lib, "pkcs11-lib", "", "PKCS#11 `module` to load (default: the URI's module-path or module-name, else p11-kit's)")
	fs.Var(&f.pin, "pin", "where the token's PIN comes from, unless the URI says so (default prompt)")
	fs.BoolVar(&f.finalTry, "pin-final-try", false, "present the PIN even if a wrong one would lock the token")
}

func (f *identityFlags) addReusePINFlag(fs *pflag.FlagSet) {
	fs.BoolVar(&f.reusePIN, "reuse-pin", false, "use the token's PIN also for keys that want it at every signature")
}

// addTPMFlags adds what using a TPM's key needs.
func (f *identityFlags) addTPMFlags(fs *pflag.FlagSet) {
	f.addTPMLookFlags(fs)
	f.tpmAuth.Noun, f.tpmAuth.Flag = "password", "--tpm-key-auth"
	fs.Var(&f.tpmAuth, "tpm-key-auth", "where the TPM key's password comes from, if it has one (default prompt)")
	fs.StringVar(&f.tpmKeyPassword, "tpm-key-password", "", "`password` of the TPM key itself (visible to every user of this machine; prefer --tpm-key-auth)")
	fs.BoolVar(&f.noTPMKeyPassword, "no-tpm-key-password", false, "the TPM key has no password")
}

// addTPMLookFlags adds what looking at a TPM's key needs: all but its password.
func (f *identityFlags) addTPMLookFlags(fs *pflag.FlagSet) {
	f.addTPMDeviceFlag(fs)
	f.addTPMOwnerFlag(fs)
	f.tpmParentAuth.Noun, f.tpmParentAuth.Flag = "password", "--tpm-parent-auth"
	fs.Var(&f.tpmParentAuth, "tpm-parent-auth", "where the password of the TPM key's parent comes from (default: it has none)")
	fs.StringVar(&f.pcrSignature, "tpm-pcr-signature", "", "`file` of signed PCR policies, as systemd-measure or \"key approve\" makes them; a bare name is that of one in the current directory, else in systemd's: /etc/systemd, … (default tpm2-pcr-signature.json in systemd's)")
}

func (f *identityFlags) addTPMDeviceFlag(fs *pflag.FlagSet) {
	fs.StringVar(&f.tpmDevice, "tpm-device", "", "the `TPM`: a device or socket, swtpm:path=PATH, swtpm:host=HOST,port=PORT or tbs (default $TPM_DEVICE, else "+tpm.DefaultDevice+", on Windows tbs)")
}

func (f *identityFlags) addTPMOwnerFlag(fs *pflag.FlagSet) {
	f.tpmOwnerAuth.Noun, f.tpmOwnerAuth.Flag = "password", "--tpm-owner-auth"
	fs.Var(&f.tpmOwnerAuth, "tpm-owner-auth", "where the password of the TPM's owner hierarchy comes from (default: it has none)")
}

func (f *identityFlags) addStoreFlags(fs *pflag.FlagSet) {
	fs.StringVar(&f.certSelector, "cert-selector", "", "`selector` of a certificate in the operating system's store, or file://PATH of one in JSON")
	fs.StringVar(&f.systemStoreName, "system-store-name", "MY", "`name` of the Windows certificate store")
}

// exclusive lists which flags do not go together.
var exclusive = map[string][]string{
	"certificate":                     {"cert-selector", "system-store-name"},
	"private-key":                     {"cert-selector", "system-store-name", "use-latest-expiring-certificate"},
	"use-latest-expiring-certificate": {"intermediates", "reuse-pin"},
	"cert-selector":                   {"intermediates", "reuse-pin", "tpm-key-password", "no-tpm-key-password"},
	"system-store-name":               {"reuse-pin"},
	"tpm-key-password":                {"reuse-pin", "no-tpm-key-password", "pkcs8-password", "tpm-key-auth"},
	"tpm-key-auth":                    {"no-tpm-key-password"},
	"passphrase":                      {"pkcs8-password"},
}

// checkFlags refuses what does not go together, and what names no key.
func (f *identityFlags) checkFlags(cmd *cobra.Command) error {
	fs := cmd.Flags()
	var err error
	fs.Visit(func(flag *pflag.Flag) {
		for _, other := range exclusive[flag.Name] {
			if err == nil && fs.Changed(other) {
				err = usageError(cmd, fmt.Errorf("--%s and --%s do not go together", flag.Name, other))
			}
		}
	})
	if err != nil {
		return err
	}
	if fs.Changed("cert-selector") {
		if _, err := parseSelector(f.certSelector); err != nil {
			return usageError(cmd, err)
		}
	}
	if fs.Changed("cert-selector") || fs.Changed("system-store-name") || fs.Changed("use-latest-expiring-certificate") {
		return usageError(cmd, signer.WithHint(
			errors.New("certificate stores of the operating system are not supported on this platform"),
			"name the certificate and its key with --certificate and --private-key"))
	}
	return nil
}

// seconds is a duration flag that takes whole seconds, as aws_signing_helper
// does, or a Go duration such as "1h".
type seconds time.Duration

func (s *seconds) Set(text string) error {
	if n, err := strconv.Atoi(text); err == nil {
		*s = seconds(time.Duration(n) * time.Second)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("give whole seconds, or a duration such as 1h")
	}
	*s = seconds(d)
	return nil
}

func (s *seconds) String() string {
	return strings.TrimSuffix(strconv.FormatFloat(time.Duration(*s).Seconds(), 'f', 3, 64), ".000")
}
func (*seconds) Type() string { return "seconds" }
