//go:build cgo

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

// newTokenKey makes a SoftHSM token in dir and a key on it that cannot leave it.
func newTokenKey(algorithm, dir string) (*workloadKey, error) {
	tokens, conf, pinFile := filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "pin")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\n"), 0o600); err != nil {
		return nil, err
	}
	const pin = "123456" // of a token that ends with the lab
	if err := os.WriteFile(pinFile, []byte(pin), 0o600); err != nil {
		return nil, err
	}
	// SoftHSM, in this process too, finds its tokens by this variable.
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return nil, err
	}
	init := exec.Command("softhsm2-util", "--init-token", "--free", "--label", tokenLabel, "--pin", pin, "--so-pin", pin)
	if out, err := init.CombinedOutput(); err != nil {
		return nil, signer.WithHint(fmt.Errorf("softhsm2-util: %w %s", err, out), "install it: apt-get install softhsm2")
	}
	uri, err := pkcs11.Parse("pkcs11:token=" + tokenLabel + ";object=device?module-name=softhsm2")
	if err != nil {
		return nil, err
	}
	uri = uri.With(pkcs11.AttrPINSource, pinFile)
	path, err := pkcs11.FindModule(uri, "")
	if err != nil {
		return nil, err
	}
	module, err := cryptoki.Load(path)
	if err != nil {
		return nil, err
	}
	k := &workloadKey{reference: uri.Exact(), variables: []variable{{"SOFTHSM2_CONF", conf}}, close: module.Close}
	key, err := module.GenerateKey(context.Background(), uri, algorithm, cryptoki.Options{})
	if err != nil {
		return nil, errors.Join(err, module.Close())
	}
	k.signer = key
	k.install = func(cert *x509.Certificate) error {
		_, err := module.ImportCertificate(context.Background(), uri, cert, cryptoki.Options{})
		return errors.Join(err, key.Close())
	}
	return k, nil
}

const tokenLabel = "holdfast-lab"
