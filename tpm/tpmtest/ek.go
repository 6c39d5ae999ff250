package tpmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// An EKCA is a CA of swtpm_localca's, as a TPM maker's: it certifies the EKs of
// the TPMs it makes.
type EKCA struct{ dir string }

// NewEKCA prepares a CA, which is made with its first TPM.
func NewEKCA(t testing.TB) *EKCA {
	t.Helper()
	Tool(t, "swtpm_localca", "swtpm-tools")
	dir, err := os.MkdirTemp("", "ekca")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	tool, err := exec.LookPath("swtpm_localca")
	if err != nil {
		t.Fatal(err)
	}
	ca := &EKCA{dir}
	for name, text := range map[string]string{
		"setup.conf": "create_certs_tool = " + tool + "\ncreate_certs_tool_config = " + ca.file("localca.conf") +
			"\ncreate_certs_tool_options = " + ca.file("localca.options") + "\nactive_pcr_banks = sha256\n",
		"localca.conf": "statedir = " + dir + "\nsigningkey = " + ca.file("signkey.pem") +
			"\nissuercert = " + ca.Issuer() + "\ncertserial = " + ca.file("certserial") + "\n",
		"localca.options": "--platform-manufacturer holdfast\n--platform-version 1\n--platform-model lab\n",
	} {
		if err := os.WriteFile(ca.file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca
}

// Root is the file of the root's certificate, in PEM.
func (ca *EKCA) Root() string { return ca.file("swtpm-localca-rootca-cert.pem") }

// Issuer is the file of the certificate of the CA between root and EKs.
func (ca *EKCA) Issuer() string { return ca.file("issuercert.pem") }

func (ca *EKCA) file(name string) string { return filepath.Join(ca.dir, name) }

// Start has swtpm_setup make a TPM with EK certificates, and starts it as
// [Start] does.
func (ca *EKCA) Start(t testing.TB) *TPM {
	t.Helper()
	Tool(t, "swtpm", "swtpm")
	Tool(t, "swtpm_setup", "swtpm-tools")
	s := prepare(t, 0)
	setup := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", s.state, "--create-ek-cert", "--config", ca.file("setup.conf"))
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup: %v\n%s", err, out)
	}
	s.Launch()
	return s
}
