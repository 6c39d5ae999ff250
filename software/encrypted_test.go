package software_test

import (
	"context"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

func TestEncryptedPKCS8(t *testing.T) {
	path, pub := genP256(t)
	var tests [][]string
	for _, cipher := range []string{"aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc"} {
		for _, prf := range []string{"hmacWithSHA1", "hmacWithSHA224", "hmacWithSHA256", "hmacWithSHA384", "hmacWithSHA512"} {
			tests = append(tests, []string{"-v2", cipher, "-v2prf", prf})
		}
		tests = append(tests, []string{"-v2", cipher, "-scrypt"})
	}
	for _, scheme := range []string{"PBE-SHA1-3DES", "PBE-SHA1-2DES", "PBE-SHA1-RC2-128", "PBE-SHA1-RC2-40", "PBE-MD5-DES", "PBE-SHA1-DES"} {
		tests = append(tests, []string{"-v1", scheme, "-provider", "default", "-provider", "legacy"})
	}
	tests = append(tests,
		[]string{"-iter", "1"},
		[]string{"-iter", "100000"},
		[]string{"-scrypt", "-scrypt_N", "1024", "-scrypt_r", "4", "-scrypt_p", "16"})
	for _, args := range tests {
		for _, form := range []string{"PEM", "DER"} {
			t.Run(strings.Join(args, " ")+" "+form, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "key")
				openssl(t, append([]string{"pkcs8", "-topk8", "-in", path, "-outform", form, "-passout", "pass:" + passphrase, "-out", out}, args...)...)
				asked := 0
				key, err := software.ReadKey(t.Context(), out, with(passphrase, &asked))
				if err != nil {
					t.Fatal(err)
				}
				if asked != 1 {
					t.Errorf("asked %d times for the passphrase", asked)
				}
				checkSigns(t, key, pub)
				checkWrongPassphrase(t, out)
			})
		}
	}
}

func TestOldPEMEncryption(t *testing.T) {
	for name, gen := range map[string]string{"rsa": "RSA", "ec": "EC"} {
		path, pub := genP256(t)
		if gen == "RSA" {
			path, pub = genRSA(t)
		}
		for _, cipher := range []string{"-aes128", "-aes192", "-aes256", "-des3", "-des"} {
			t.Run(name+cipher, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "key.pem")
				args := []string{"pkey", "-traditional", cipher, "-in", path, "-passout", "pass:" + passphrase, "-out", out, "-provider", "default", "-provider", "legacy"}
				openssl(t, args...)
				if !strings.Contains(string(read(t, out)), "DEK-Info") {
					t.Fatal("not the old encryption")
				}
				key, err := software.ReadKey(t.Context(), out, with(passphrase, nil))
				if err != nil {
					t.Fatal(err)
				}
				checkSigns(t, key, pub)
				checkWrongPassphrase(t, out)
			})
		}
	}
}

// checkWrongPassphrase tries many, for one in 256 leaves valid padding.
func checkWrongPassphrase(t *testing.T, path string) {
	t.Helper()
	_, err := software.ReadKey(t.Context(), path, with("wrong", nil))
	checkError(t, err, path)
	if !errors.Is(err, signer.ErrPassphraseIncorrect) {
		t.Errorf("wrong passphrase: %v", err)
	}
	_, err = software.ReadKey(t.Context(), path, software.Options{})
	checkError(t, err, path)
	if !errors.Is(err, signer.ErrPassphraseRequired) || signer.Hint(err) == "" {
		t.Errorf("no passphrase: %v, hint %q", err, signer.Hint(err))
	}
}

func TestManyWrongPassphrases(t *testing.T) {
	path, _ := genP256(t)
	dir := t.TempDir()
	modern, old := filepath.Join(dir, "modern"), filepath.Join(dir, "old")
	openssl(t, "pkcs8", "-topk8", "-in", path, "-iter", "1", "-passout", "pass:"+passphrase, "-out", modern)
	openssl(t, "pkey", "-traditional", "-aes128", "-in", path, "-passout", "pass:"+passphrase, "-out", old)
	for _, f := range []string{modern, old} {
		data := read(t, f)
		for i := range 2000 {
			_, err := software.Parse(t.Context(), "key.pem", data, with(fmt.Sprint("wrong", i), nil))
			if !errors.Is(err, signer.ErrPassphraseIncorrect) {
				t.Fatalf("passphrase %d: %v", i, err)
			}
		}
	}
}

func TestPassphraseNotToBeHad(t *testing.T) {
	path, _ := genP256(t)
	out := filepath.Join(t.TempDir(), "key.pem")
	openssl(t, "pkcs8", "-topk8", "-in", path, "-passout", "pass:x", "-out", out)
	gone := errors.New("no terminal")
	_, err := software.ReadKey(t.Context(), out, software.Options{
		Passphrase: func(_ context.Context, object string) (signer.Secret, error) {
			if object != out {
				t.Errorf("asked for %q", object)
			}
			return signer.Secret{}, gone
		},
	})
	if checkError(t, err, out); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
}

func TestUnsupportedEncryption(t *testing.T) {
	path, _ := genP256(t)
	for _, test := range []struct {
		args []string
		name string
	}{
		{[]string{"-v1", "PBE-SHA1-RC4-128"}, "RC4"},
		{[]string{"-v1", "PBE-MD5-RC2-64"}, "pbeWithMD5AndRC2-CBC"},
		{[]string{"-v2", "camellia-256-cbc"}, "Camellia"},
	} {
		out := filepath.Join(t.TempDir(), "key.pem")
		openssl(t, append([]string{"pkcs8", "-topk8", "-in", path, "-passout", "pass:" + passphrase, "-out", out, "-provider", "default", "-provider", "legacy"}, test.args...)...)
		_, err := software.ReadKey(t.Context(), out, with(passphrase, nil))
		checkError(t, err, out)
		if !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), test.name) || !strings.Contains(signer.Hint(err), "openssl") {
			t.Errorf("%v: error %v, hint %q", test.args, err, signer.Hint(err))
		}
	}
}

// Parameters that OpenSSL does not write but others do, or an attacker would.
func TestKDFParameters(t *testing.T) {
	type algorithm struct {
		OID    asn1.ObjectIdentifier
		Params any
	}
	type bare struct{ OID asn1.ObjectIdentifier }
	type iterations struct {
		Salt       []byte
		Iterations int
	}
	type scryptParams struct {
		Salt    []byte
		N, R, P int
	}
	salt := []byte("saltsalt")
	pbkdf2OID := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	scryptOID := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	sha256 := asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	kdf := func(params any) any { return algorithm{pbkdf2OID, params} }
	tests := []struct {
		name string
		kdf  any
		want error
	}{
		{"no PRF", kdf(iterations{salt, 10}), signer.ErrPassphraseIncorrect},
		{"PRF without NULL", kdf(struct {
			Salt       []byte
			Iterations int
			PRF        bare
		}{salt, 10, bare{sha256}}), signer.ErrPassphraseIncorrect},
		{"key length", kdf(struct {
			Salt                  []byte
			Iterations, KeyLength int
		}{salt, 10, 32}), signer.ErrPassphraseIncorrect},
		{"wrong key length", kdf(struct {
			Salt                  []byte
			Iterations, KeyLength int
		}{salt, 10, 1 << 30}), signer.ErrMalformed},
		{"no iterations", kdf(iterations{salt, 0}), signer.ErrMalformed},
		{"negative iterations", kdf(iterations{salt, -1}), signer.ErrMalformed},
		{"too many iterations", kdf(iterations{salt, 10_000_001}), signer.ErrMalformed},
		{"huge scrypt N", algorithm{scryptOID, scryptParams{salt, 1 << 30, 8, 1}}, signer.ErrMalformed},
		{"huge scrypt r", algorithm{scryptOID, scryptParams{salt, 2, 1 << 30, 1}}, signer.ErrMalformed},
		{"huge scrypt p", algorithm{scryptOID, scryptParams{salt, 2, 1, 1 << 30}}, signer.ErrMalformed},
		{"huge scrypt memory", algorithm{scryptOID, scryptParams{salt, 1 << 20, 8, 1}}, signer.ErrMalformed},
		{"huge scrypt time", algorithm{scryptOID, scryptParams{salt, 1 << 18, 8, 64}}, signer.ErrMalformed},
		{"odd scrypt N", algorithm{scryptOID, scryptParams{salt, 1000, 8, 1}}, signer.ErrMalformed},
		{"no scrypt N", algorithm{scryptOID, scryptParams{salt, 0, 8, 1}}, signer.ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			data, err := asn1.Marshal(struct {
				Algorithm algorithm
				Data      []byte
			}{
				algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}, struct{ KDF, Cipher any }{
					test.kdf,
					algorithm{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, make([]byte, 16)},
				}},
				make([]byte, 64),
			})
			if err != nil {
				t.Fatal(err)
			}
			data = pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: data})
			_, err = software.Parse(t.Context(), "key.pem", data, with(passphrase, nil))
			if checkError(t, err, "key.pem"); !errors.Is(err, test.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}
