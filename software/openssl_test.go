package software_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

const passphrase = "correct horse"

// openssl runs the command and returns its output.
func openssl(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is missing; install it: apt-get install openssl")
	}
	cmd := exec.Command(path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

// genpkey makes a key with openssl and returns its path and its public key.
func genpkey(t *testing.T, args ...string) (path string, public crypto.PublicKey) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "key.pem")
	openssl(t, append([]string{"genpkey", "-out", path}, args...)...)
	pub, err := signer.ParsePublicKey(openssl(t, "pkey", "-in", path, "-pubout", "-outform", "DER"))
	if err != nil {
		t.Fatal(err)
	}
	return path, pub
}

func genP256(t *testing.T) (string, crypto.PublicKey) {
	t.Helper()
	return genpkey(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
}

func genRSA(t *testing.T) (string, crypto.PublicKey) {
	t.Helper()
	return genpkey(t, "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
}

// with answers every question for a passphrase with s, and counts them.
func with(s string, asked *int) software.Options {
	return software.Options{Passphrase: func(context.Context, string) (signer.Secret, error) {
		if asked != nil {
			*asked++
		}
		return signer.NewSecret([]byte(s)), nil
	}}
}

// checkSigns signs with key and verifies with pub, which comes from elsewhere.
func checkSigns(t *testing.T, key crypto.Signer, pub crypto.PublicKey) {
	t.Helper()
	opts := crypto.SHA256
	if strings.HasPrefix(signer.DescribeKey(pub), "ML-DSA") {
		opts = 0
	}
	message := []byte("a message")
	sig, err := crypto.SignMessage(key, rand.Reader, message, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := signer.Verify(pub, message, sig, opts); err != nil {
		t.Errorf("signature of the loaded key: %v", err)
	}
}

// checkError checks the manners of an error: one line, with the file's name.
func checkError(t *testing.T, err error, name string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	text := err.Error()
	if strings.ContainsAny(text, "\n\r") || !strings.Contains(text, name) {
		t.Errorf("error %q is not one line that names %s", text, name)
	}
	if strings.Contains(text, passphrase) {
		t.Errorf("error %q holds the passphrase", text)
	}
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func pemToDER(t *testing.T, data []byte) []byte {
	t.Helper()
	b, _ := pem.Decode(data)
	if b == nil {
		t.Fatal("no PEM block")
	}
	return b.Bytes
}
