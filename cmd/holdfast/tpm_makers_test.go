package main

import (
	"path/filepath"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
)

// A keyMaker is a program that makes TPM keys. auth is "empty", "key" for one
// with keySecret, or "parent" for one below parentHandle.
type keyMaker struct {
	name string
	make func(t *testing.T, w *tpmSite, alg tpm.Algorithm, auth string) matrixKey
}

// keyAuth are the flags for a key with keySecret.
func (w *tpmSite) keyAuth() []string {
	return []string{"--tpm-key-auth", "file:" + w.path("key-secret")}
}

func (w *tpmSite) keyFile(maker string, alg tpm.Algorithm, auth string) matrixKey {
	k := matrixKey{file: w.path(maker + " " + string(alg) + " " + auth + ".pem")}
	if auth == "key" {
		k.flags = w.keyAuth()
	}
	return k
}

var holdfastKey = keyMaker{"holdfast", func(t *testing.T, w *tpmSite, alg tpm.Algorithm, auth string) matrixKey {
	t.Helper()
	k := w.keyFile("holdfast", alg, auth)
	args := []string{"key", "create", "--tpm", "--private-key", k.file, "--type", typeNames[alg].holdfast}
	switch auth {
	case "key":
		args = append(args, k.flags...)
	case "parent":
		args = append(args, "--tpm-parent", "handle:0x81000020", "--tpm-parent-auth", "file:"+w.path("parent-secret"))
	}
	if _, stderr, code := w.holdfast(args...); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	return k
}}

var opensslKey = keyMaker{"tpm2-openssl", func(t *testing.T, w *tpmSite, alg tpm.Algorithm, auth string) matrixKey {
	t.Helper()
	k := w.keyFile("openssl", alg, auth)
	args := append([]string{"openssl", "genpkey", "-provider", "tpm2", "-out", k.file}, typeNames[alg].openssl...)
	switch auth {
	case "key":
		args = append(args, "-pkeyopt", "user-auth:"+keySecret)
	case "parent":
		args = append(args, "-pkeyopt", "parent:0x81000020", "-pkeyopt", "parent-auth:"+parentSecret)
	}
	w.tpm.Run(args...)
	w.tpm.Clear()
	return k
}}

// toolsKey is tpm2_create and tpm2_encodeobject, which does not write that a key
// has no password.
var toolsKey = keyMaker{"tpm2-tools", func(t *testing.T, w *tpmSite, alg tpm.Algorithm, auth string) matrixKey {
	t.Helper()
	k := w.keyFile("tools", alg, auth)
	if auth != "key" {
		k.flags = []string{"--no-tpm-key-password"}
	}
	parent := []string{"-C", "primary.ctx"}
	if auth == "parent" {
		parent = []string{"-C", "0x81000020", "-P", parentSecret}
	} else {
		w.tpm.Run(append([]string{"tpm2_createprimary", "-C", "o", "-c", "primary.ctx"}, h2...)...)
		w.tpm.Clear()
	}
	args := append([]string{"tpm2_create", "-G", typeNames[alg].tools, "-u", "tools.pub", "-r", "tools.priv"}, parent...)
	if auth == "key" {
		args = append(args, "-p", keySecret)
	}
	w.tpm.Run(args...)
	w.tpm.Clear()
	w.tpm.Run(append([]string{"tpm2_encodeobject", "-u", "tools.pub", "-r", "tools.priv", "-o", k.file}, parent...)...)
	w.tpm.Clear()
	return k
}}

// keyfilesKey has made its keys already, with keySecret and below parentHandle.
var keyfilesKey = keyMaker{"go-tpm-keyfiles", func(t *testing.T, w *tpmSite, alg tpm.Algorithm, auth string) matrixKey {
	t.Helper()
	name := typeNames[alg].keyfiles
	switch auth {
	case "key":
		name += "-auth"
	case "parent":
		name += "-parent"
	}
	path, err := filepath.Abs("../../testdata/tpm/go-tpm-keyfiles/" + name + ".pem")
	must(t, err)
	k := w.keyFile("", alg, auth)
	k.file = path
	return k
}}

// typeNames are what each calls a type of key.
var typeNames = map[tpm.Algorithm]struct {
	holdfast, tools, keyfiles string
	openssl                   []string
}{
	tpm.P256:    {"ec-p256", "ecc256", "p256", []string{"-algorithm", "EC", "-pkeyopt", "group:P-256"}},
	tpm.P384:    {"ec-p384", "ecc384", "p384", []string{"-algorithm", "EC", "-pkeyopt", "group:P-384"}},
	tpm.RSA2048: {"rsa-2048", "rsa2048", "rsa2048", []string{"-algorithm", "RSA", "-pkeyopt", "bits:2048"}},
}

// createKey makes a key with the library, beside the program.
func (w *tpmSite) createKey(opts tpm.CreateOptions, name string) *tpm.KeyFile {
	w.t.Helper()
	d := w.open()
	defer d.Close()
	f, err := tpm.CreateKey(w.t.Context(), d, opts)
	must(w.t, err)
	text, err := f.PEM()
	must(w.t, err)
	w.write(name, text)
	return f
}

func secretOf(s string) signer.Secret { return signer.NewSecret([]byte(s)) }
