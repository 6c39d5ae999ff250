package tpm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// Keys that github.com/foxboron/go-tpm-keyfiles made, and the swtpm that they
// were made in.
func TestKeysOfGoTPMKeyfiles(t *testing.T) {
	dir := "../testdata/tpm/go-tpm-keyfiles"
	s := tpmtest.StartFrom(t, filepath.Join(dir, "tpm2-00.permall"))
	d := open(t, s.TCTI())
	for name, opts := range map[string]tpm.Options{
		"p256.pem":       {},
		"p384.pem":       {},
		"rsa2048.pem":    {},
		"importable.pem": {},
		"p256-auth.pem":  {Auth: password("open sesame 1234", nil)},
	} {
		t.Run(name, func(t *testing.T) {
			checkSigns(t, openKey(t, d, readKeyFile(t, filepath.Join(dir, name)), opts))
		})
	}
	data, err := os.ReadFile(filepath.Join(dir, "sealed.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.ParseKeyFile(data); !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("sealed data: %v", err)
	}
	s.CheckEmpty()
}
