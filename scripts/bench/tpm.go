package main

import (
	"context"
	"crypto"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// The persistent handle of the bench's key.
const benchHandle tpm2.TPMHandle = 0x81000010

// addTPM starts swtpm on a unix socket, and makes a P-256 key without a
// password as a key file and one at a persistent handle.
func (l *lab) addTPM() (err error) {
	t := &testless{}
	l.onClose(t.cleanup)
	err = t.run(func() {
		s := tpmtest.Start(t)
		l.tpm, l.tpmProxy = s, tpmtest.NewProxy(t, s)
	})
	if err != nil {
		return err
	}
	if err := os.Setenv("TPM_DEVICE", l.tpm.TCTI()); err != nil {
		return err
	}
	ctx := context.Background()
	d, err := tpm.Open(ctx, l.tpm.TCTI())
	if err != nil {
		return err
	}
	defer d.Close()

	file, err := tpm.CreateKey(ctx, d, tpm.CreateOptions{})
	if err != nil {
		return err
	}
	text, err := file.PEM()
	if err != nil {
		return err
	}
	l.tpmKeyFile = filepath.Join(l.dir, "device.tss2.pem")
	if err := os.WriteFile(l.tpmKeyFile, text, 0o600); err != nil {
		return err
	}
	if l.tpmCert, err = l.certify("tpm.crt", file.PublicKey()); err != nil {
		return err
	}
	file, err = tpm.CreateKey(ctx, d, tpm.CreateOptions{Persistent: benchHandle})
	if err != nil {
		return err
	}
	l.handle = fmt.Sprintf("handle:%#x", uint32(benchHandle))
	l.handleCert, err = l.certify("handle.crt", file.PublicKey())
	return err
}

// certify issues a certificate into a file of the lab.
func (l *lab) certify(name string, key crypto.PublicKey) (string, error) {
	leaf, err := l.ca.Issue(key, enroll.LeafOptions{Subject: pkix.Name{CommonName: "bench"}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(l.dir, name)
	return path, os.WriteFile(path, enroll.EncodePEM(leaf), 0o644)
}

// reportTPMCommands runs what uses the TPM once more, through a proxy, and
// prints the commands that pass.
func (l *lab) reportTPMCommands(rows []*row) error {
	head := "\nTPM commands of one run\n"
	for _, r := range rows {
		if !r.countTPMCommands {
			continue
		}
		l.tpmProxy.Forget()
		if _, err := output(r.command[0], append(r.command[1:], "--tpm-device", l.tpmProxy.Spec())...); err != nil {
			return err
		}
		var names []string
		for _, code := range l.tpmProxy.Commands() {
			names = append(names, commandName(code))
		}
		fmt.Printf("%s%-30s %d: %s\n", head, r.name, len(names), strings.Join(names, ", "))
		head = ""
	}
	return nil
}

func commandName(code uint32) string {
	switch cc := tpm2.TPMCC(code); cc {
	case tpm2.TPMCCCreatePrimary:
		return "CreatePrimary"
	case tpm2.TPMCCLoad:
		return "Load"
	case tpm2.TPMCCSign:
		return "Sign"
	case tpm2.TPMCCFlushContext:
		return "FlushContext"
	case tpm2.TPMCCReadPublic:
		return "ReadPublic"
	}
	return fmt.Sprintf("%#x", code)
}

// testless stands in for a test where there is none: tpmtest is for tests.
type testless struct {
	testing.TB // nil: what is not below must not be used
	cleanups   []func()
}

type failed struct{ error }

func (t *testless) Helper()                      {}
func (t *testless) Cleanup(f func())             { t.cleanups = append(t.cleanups, f) }
func (t *testless) Fatal(args ...any)            { panic(failed{fmt.Errorf("%s", fmt.Sprint(args...))}) }
func (t *testless) Fatalf(f string, args ...any) { panic(failed{fmt.Errorf(f, args...)}) }

// run runs what may fail the test.
func (t *testless) run(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			fatal, ok := p.(failed)
			if !ok {
				panic(p)
			}
			err = fatal.error
		}
	}()
	f()
	return nil
}

func (t *testless) cleanup() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}
