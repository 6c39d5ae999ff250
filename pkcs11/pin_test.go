package pkcs11_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

func TestPINSource(t *testing.T) {
	dir := t.TempDir()
	for i, test := range []struct{ content, pin string }{
		{"1234", "1234"}, {"1234\n", "1234"}, {"1234\r\n", "1234"}, {"1234\n\n", "1234\n"}, {" 12 34 \n", " 12 34 "}, {"\x00\n", "\x00"},
	} {
		path := filepath.Join(dir, "pin %"+string(rune('a'+i)))
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, source := range []string{path, "file:" + path, "file://" + path} {
			pin, ok, err := new(pkcs11.URI).With("pin-source", source).PIN()
			if err != nil || !ok || string(pin.Reveal()) != test.pin {
				t.Errorf("%q from %s: %q, %v, %v", test.content, source, pin.Reveal(), ok, err)
			}
		}
	}
}

func TestPINSourceFails(t *testing.T) {
	dir := t.TempDir()
	empty, newline, long := filepath.Join(dir, "empty"), filepath.Join(dir, "newline"), filepath.Join(dir, "long")
	for path, content := range map[string]string{empty: "", newline: "\n", long: strings.Repeat("1", 5000)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for source, is := range map[string]error{
		filepath.Join(dir, "absent"): fs.ErrNotExist,
		dir:                          nil,
		empty:                        signer.ErrPINRequired,
		newline:                      signer.ErrPINRequired,
		long:                         signer.ErrMalformed,
		"|echo 1234":                 nil,
	} {
		pin, ok, err := new(pkcs11.URI).With("pin-source", source).PIN()
		if err == nil || !ok || !pin.Empty() || is != nil && !errors.Is(err, is) {
			t.Errorf("%s: %v, %v, %v", source, pin, ok, err)
		}
	}
	if _, _, err := new(pkcs11.URI).With("pin-value", "").PIN(); !errors.Is(err, signer.ErrPINRequired) {
		t.Error(err)
	}
	if _, ok, err := new(pkcs11.URI).PIN(); ok || err != nil {
		t.Error("a URI without a PIN has one")
	}
}
