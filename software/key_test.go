package software_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func TestPlainFormats(t *testing.T) {
	keys := []struct {
		name string
		args []string
	}{
		{"RSA-2048", []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}},
		{"RSA-3072", []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"}},
		{"EC P-256", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}},
		{"EC P-384", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"}},
		{"EC P-521", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"}},
	}
	formats := []struct {
		name string
		args []string
	}{
		{"PKCS8-PEM", []string{"pkey"}},
		{"PKCS8-DER", []string{"pkcs8", "-topk8", "-nocrypt", "-outform", "DER"}},
		{"traditional-PEM", []string{"pkey", "-traditional"}},
		{"traditional-DER", []string{"pkey", "-traditional", "-outform", "DER"}},
	}
	for _, k := range keys {
		t.Run(k.name, func(t *testing.T) {
			path, pub := genpkey(t, k.args...)
			for _, f := range formats {
				t.Run(f.name, func(t *testing.T) {
					out := filepath.Join(t.TempDir(), "out")
					openssl(t, append(f.args, "-in", path, "-out", out)...)
					key, err := software.ReadKey(t.Context(), out, software.Options{})
					if err != nil {
						t.Fatal(err)
					}
					if got := signer.DescribeKey(key.Public()); got != k.name {
						t.Errorf("read %s", got)
					}
					checkSigns(t, key, pub)
				})
			}
		})
	}
}

func TestUnsupportedKeys(t *testing.T) {
	tests := []struct {
		name string
		args []string
		text string
	}{
		{"Ed25519", []string{"-algorithm", "ED25519"}, "no signing algorithm"},
		{"Ed448", []string{"-algorithm", "ED448"}, "Ed448"},
		{"X25519", []string{"-algorithm", "X25519"}, "cannot sign"},
		{"RSA-1024", []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"}, "RSA-1024 is too short"},
		{"PSS", []string{"-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"}, "PSS alone"},
		{"P-224", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"}, "P-224"},
		{"secp256k1", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"}, "secp256k1"},
		{"brainpool", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"}, "brainpoolP256r1"},
		{"explicit", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"}, "explicit curve"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.pem")
			openssl(t, append([]string{"genpkey", "-out", path}, test.args...)...)
			_, err := software.ReadKey(t.Context(), path, software.Options{})
			checkError(t, err, path)
			if !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTraditionalOfAnotherCurve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	openssl(t, "ecparam", "-name", "secp256k1", "-genkey", "-out", path)
	_, err := software.ReadKey(t.Context(), path, software.Options{})
	if !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "secp256k1") {
		t.Errorf("error %v", err)
	}
}

// The halves of an EC key lie side by side; a flipped bit in the private one
// would else make another valid key.
func TestDamagedScalar(t *testing.T) {
	path, _ := genP256(t)
	data := pemToDER(t, read(t, path))
	data[len(data)-80] ^= 1
	_, err := software.Parse(t.Context(), "key.der", data, software.Options{})
	checkError(t, err, "key.der")
	if !errors.Is(err, signer.ErrMalformed) {
		t.Errorf("error %v", err)
	}
}

// A file that is cut short anywhere is an error, in each format, and says so.
func TestTruncated(t *testing.T) {
	path, _ := genRSA(t)
	dir := t.TempDir()
	file := func(name string, args ...string) string {
		out := filepath.Join(dir, name)
		openssl(t, append(args, "-in", path, "-out", out)...)
		return out
	}
	csr := filepath.Join(dir, "cert.pem")
	openssl(t, "req", "-x509", "-new", "-key", path, "-subj", "/CN=workload", "-out", csr)
	p12 := filepath.Join(dir, "key.p12")
	openssl(t, "pkcs12", "-export", "-inkey", path, "-in", csr, "-passout", "pass:"+passphrase, "-out", p12)
	files := []string{
		path, csr, p12,
		file("pkcs1.pem", "pkey", "-traditional"),
		file("pkcs8.der", "pkcs8", "-topk8", "-nocrypt", "-outform", "DER"),
		file("pkcs1.der", "pkey", "-traditional", "-outform", "DER"),
		file("encrypted.pem", "pkcs8", "-topk8", "-passout", "pass:"+passphrase),
		file("encrypted.der", "pkcs8", "-topk8", "-passout", "pass:"+passphrase, "-outform", "DER"),
		file("old.pem", "rsa", "-traditional", "-aes128", "-passout", "pass:"+passphrase),
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			data := read(t, f)
			for n := 0; n < len(data)-1; n += 16 {
				_, err := software.Parse(t.Context(), "short", data[:n], with(passphrase, nil))
				if checkError(t, err, "short"); !errors.Is(err, signer.ErrMalformed) {
					t.Fatalf("%d bytes of %d: %v", n, len(data), err)
				}
			}
		})
	}
}
