package hosted

import (
	"os"
	"slices"
	"strings"
)

// PassVariable names the environment variable that lists, separated by commas,
// further variables to pass on to the module; a name may end in "*".
const PassVariable = "HOLDFAST_PKCS11_ENV"

// Environment returns the names of the variables that the host passes on to
// the module; those that end in "*" stand for all that begin so. Of what the
// "*" covers, variables with PIN, PASSWORD, PASSPHRASE, SECRET or TOKEN for a
// part of their names are left out. A module that needs another finds it named
// in HOLDFAST_PKCS11_ENV. PATH is not among them: a module has nothing to run.
func Environment() []string {
	return []string{
		// the system
		"HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
		"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_CACHE_HOME", "DBUS_SESSION_BUS_ADDRESS",
		"OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
		// Windows
		"SystemRoot", "SystemDrive", "windir", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "ProgramData", "ProgramFiles",
		// modules
		"SOFTHSM2_*", "SOFTHSM_*", "P11_KIT_*", "PKCS11_*", "PKCS11SPY*", "OPENSC_*", "PCSCLITE_*", "LIBPCSCLITE_*",
		"TPM2_PKCS11_*", "TPM2TSS_*", "TSS2_*", "TCTI*", "YKCS11_*", "YUBIHSM_*", "CKNFAST_*", "NFAST_*", "NFKM_*",
		"ChrystokiConfigurationPath", "LUNA*", "ET_PTKC_*", "ET_HSM_*", "CS_PKCS11_*", "CRYPTOSERVER", "CLOUDHSM_*", "HSM_*",
		"KMS_PKCS11_*", "FORTANIX_*", "GNOME_KEYRING_*", "NSS_*", "ICSF_*", "OCK_*", "KRYOPTIC_*",
	}
}

// environment filters what the host gets, from own or from this process.
func environment(own []string) []string {
	if own == nil {
		own = os.Environ()
	}
	allowed := Environment()
	for _, v := range own {
		if list, ok := strings.CutPrefix(v, PassVariable+"="); ok {
			allowed = append(allowed, strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })...)
		}
	}
	var pass []string
	for _, v := range own {
		name, _, ok := strings.Cut(v, "=")
		if ok && passes(name, allowed) {
			pass = append(pass, v)
		}
	}
	return pass
}

func passes(name string, allowed []string) bool {
	for _, a := range allowed {
		prefix, wild := strings.CutSuffix(a, "*")
		if a == name || wild && strings.HasPrefix(name, prefix) && !soundsSecret(name) {
			return true
		}
	}
	return false
}

func soundsSecret(name string) bool {
	parts := strings.Split(strings.ToUpper(name), "_")
	return slices.ContainsFunc(parts, func(p string) bool {
		return slices.Contains([]string{"PIN", "PASSWORD", "PASSPHRASE", "SECRET", "TOKEN"}, p)
	})
}
