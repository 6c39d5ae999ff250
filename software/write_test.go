package software_test

import (
	"crypto"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func TestGenerateAndWrite(t *testing.T) {
	for _, algorithm := range software.Algorithms() {
		t.Run(algorithm, func(t *testing.T) {
			key, err := software.Generate(algorithm)
			if err != nil {
				t.Fatal(err)
			}
			for _, pass := range []string{"", passphrase} {
				data, err := software.MarshalPrivateKey(key, signer.NewSecret([]byte(pass)))
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(t.TempDir(), "key.pem")
				if err := software.WriteKeyFile(path, data); err != nil {
					t.Fatal(err)
				}
				again, err := software.ReadKey(t.Context(), path, with(pass, nil))
				if err != nil {
					t.Fatal(err)
				}
				if !again.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key) {
					t.Error("another key was read")
				}
				checkSigns(t, again, key.Public())
				if pass != "" {
					checkWrongPassphrase(t, path)
				}
				if strings.HasPrefix(algorithm, "ml-dsa") {
					if pass == "" && len(pemToDER(t, data)) != 54 {
						t.Error("not in seed form")
					}
					continue // OpenSSL before 3.5 has no ML-DSA
				}
				pub := openssl(t, "pkey", "-in", path, "-passin", "pass:"+pass, "-pubout", "-outform", "DER")
				public, err := signer.ParsePublicKey(pub)
				if err != nil {
					t.Fatal(err)
				}
				checkSigns(t, key, public)
			}
		})
	}
}

func TestAlgorithmNames(t *testing.T) {
	for alias, want := range map[string]string{
		"P-256": "EC P-256", "prime256v1": "EC P-256", "EC_prime256v1": "", "ec-p-384": "EC P-384", "ECDSA_P521": "EC P-521",
		"RSA:2048": "RSA-2048", "MLDSA44": "ML-DSA-44", "ML-DSA-87": "ML-DSA-87", "Ed25519": "", "rsa-1024": "", "": "",
	} {
		key, err := software.Generate(alias)
		if want == "" {
			if !errors.Is(err, signer.ErrUnsupportedKey) {
				t.Errorf("%q: error %v", alias, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", alias, err)
		} else if got := signer.DescribeKey(key.Public()); got != want {
			t.Errorf("%q: %s", alias, got)
		}
	}
	if _, err := software.Generate("dsa"); !strings.Contains(err.Error(), "ec-p256, ec-p384") {
		t.Errorf("error %v lists no choices", err)
	}
}

func TestWriteKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})
	if err := software.WriteKeyFile(path, data); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	err = software.WriteKeyFile(path, []byte("other"))
	checkError(t, err, path)
	if !errors.Is(err, fs.ErrExist) || signer.Hint(err) == "" {
		t.Errorf("error %v", err)
	}
	if string(read(t, path)) != string(data) {
		t.Error("the key was overwritten")
	}
	err = software.WriteKeyFile(filepath.Join(dir, "none", "key.pem"), data)
	if checkError(t, err, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	// A link that leads nowhere is not followed.
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), link); err != nil {
		t.Fatal(err)
	}
	if err := software.WriteKeyFile(link, data); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v", err)
	}
}
