package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-iam/holdfast/signer/enroll"
)

// addToken makes a SoftHSM token with a P-256 key and its certificate.
func (l *lab) addToken() error {
	conf, pin := filepath.Join(l.dir, "softhsm2.conf"), filepath.Join(l.dir, "pin")
	if err := errors.Join(
		os.Mkdir(filepath.Join(l.dir, "tokens"), 0o700),
		os.WriteFile(conf, []byte("directories.tokendir = "+filepath.Join(l.dir, "tokens")+"\n"), 0o600),
		os.WriteFile(pin, []byte("1234"), 0o600),
		os.Setenv("SOFTHSM2_CONF", conf),
	); err != nil {
		return err
	}
	l.tokenURI = "pkcs11:token=bench;object=device?module-name=softhsm2&pin-source=" + pin
	if _, err := output("softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", "1234", "--so-pin", "1234"); err != nil {
		return fmt.Errorf("%w (apt-get install softhsm2)", err)
	}
	if _, err := output(l.holdfast, "key", "create", "--private-key", l.tokenURI); err != nil {
		return err
	}
	text, err := output(l.holdfast, "csr", "--private-key", l.tokenURI, "--subject", "CN=bench")
	if err != nil {
		return err
	}
	csr, err := enroll.ParseRequest(text)
	if err != nil {
		return err
	}
	leaf, err := l.ca.Sign(csr, enroll.LeafOptions{})
	if err != nil {
		return err
	}
	file := filepath.Join(l.dir, "token.crt")
	if err := os.WriteFile(file, enroll.EncodePEM(leaf), 0o644); err != nil {
		return err
	}
	_, err = output(l.holdfast, "certificate", "install", "--certificate", file, "--private-key", l.tokenURI)
	return err
}
