package main

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

// What a person is asked for is not kept for others without being told to.
func TestWhichTPMKeysAsk(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, parts ...[]byte) string {
		var text []byte
		for _, p := range parts {
			text = append(text, p...)
		}
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, text, 0o600))
		return path
	}
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("../../testdata/tpm", name))
		must(t, err)
		return text
	}
	openssl, auth := read("openssl-p256.pem"), read("go-tpm-keyfiles/p256-auth.pem")
	plain, encrypted := softwareKeys(t)
	block, _ := pem.Decode(openssl)
	emptyAuth := []byte{0xa0, 3, 1, 1, 1}
	silent := bytes.Replace(block.Bytes, emptyAuth, nil, 1)
	silent[2] -= byte(len(emptyAuth)) // of the SEQUENCE's length

	paths := map[string]string{
		"no password": file("openssl", openssl), "no password, DER": file("der", block.Bytes),
		"password": file("auth", auth), "silent": file("silent", silent),
		"plain beside": file("plain", auth, plain), "encrypted beside": file("encrypted", openssl, encrypted),
		"damaged": file("damaged", openssl[:100]), "absent": filepath.Join(dir, "absent"), "handle": "handle:0x81000001",
	}
	for _, test := range []struct {
		key  string
		args []string
		want bool
	}{
		{"no password", nil, false}, // its emptyAuth is 0x01
		{"no password, DER", nil, false},
		{"no password", []string{"--tpm-key-auth", "prompt"}, false},
		{"no password", []string{"--tpm-owner-auth", "prompt"}, true},
		{"no password", []string{"--tpm-parent-auth", "prompt"}, true},
		{"no password", []string{"--tpm-owner-auth", "env:X"}, false},
		{"password", nil, true},
		{"password", []string{"--tpm-key-auth", "prompt"}, true},
		{"password", []string{"--tpm-key-auth", "file:x"}, false},
		{"password", []string{"--tpm-key-auth", "env:X"}, false},
		{"password", []string{"--tpm-key-auth", "credential:x"}, false},
		{"password", []string{"--tpm-key-auth", "fd:3"}, false},
		{"password", []string{"--tpm-key-auth", "fd:3", "--tpm-owner-auth", "prompt"}, true},
		{"password", []string{"--passphrase", "file:x"}, true},
		{"password", []string{"--tpm-key-password", "x"}, false},
		{"password", []string{"--no-tpm-key-password"}, false},
		{"silent", nil, true},
		{"silent", []string{"--no-tpm-key-password"}, false},
		{"plain beside", nil, false},
		{"encrypted beside", nil, true},
		{"encrypted beside", []string{"--passphrase", "file:x"}, false},
		{"damaged", nil, false}, // before anybody could be asked
		{"absent", nil, true},
		{"handle", nil, false},
		{"handle", []string{"--tpm-key-auth", "prompt"}, true},
		{"handle", []string{"--tpm-key-auth", "env:X"}, false},
		{"handle", []string{"--tpm-key-password", "x"}, false},
		{"handle", []string{"--no-tpm-key-password"}, false},
	} {
		var f identityFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.add(fs)
		must(t, fs.Parse(append(test.args, "--private-key", paths[test.key])))
		if got := f.asksPerson(); got != test.want {
			t.Errorf("%s %q: asks %v, want %v", test.key, test.args, got, test.want)
		}
	}
}

func softwareKeys(t *testing.T) (plain, encrypted []byte) {
	t.Helper()
	k, err := software.Generate("ec-p256")
	must(t, err)
	plain, err = software.MarshalPrivateKey(k, signer.Secret{})
	must(t, err)
	encrypted, err = software.MarshalPrivateKey(k, signer.NewSecret([]byte("sesame")))
	must(t, err)
	return plain, encrypted
}
