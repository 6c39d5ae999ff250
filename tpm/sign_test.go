package tpm_test

import (
	"fmt"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

var algorithms = []tpm.Algorithm{tpm.P256, tpm.P384, tpm.P521, tpm.RSA2048}

const longSecret = "0123456789abcdef\x00tail"

func TestKeys(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		s := tpmtest.Start(t)
		if network == "tcp" {
			s = tpmtest.StartTCP(t)
		}
		d := open(t, s.TCTI())
		for i, alg := range algorithms {
			t.Run(fmt.Sprint(network, "/", alg, "/file"), func(t *testing.T) {
				f := create(t, d, tpm.CreateOptions{Algorithm: alg})
				k := openKey(t, d, f, tpm.Options{})
				if got := signer.DescribeKey(k.Public()); got != string(alg) {
					t.Errorf("made %s", got)
				}
				checkSigns(t, k)
			})
			t.Run(fmt.Sprint(network, "/", alg, "/auth"), func(t *testing.T) {
				var asked int
				f := create(t, d, tpm.CreateOptions{Algorithm: alg, Auth: signer.NewSecret([]byte(longSecret))})
				checkSigns(t, openKey(t, d, f, tpm.Options{Auth: password(longSecret, &asked)}))
				if asked != 1 {
					t.Errorf("asked for the password %d times", asked)
				}
			})
			t.Run(fmt.Sprint(network, "/", alg, "/handle"), func(t *testing.T) {
				h := tpm2.TPMHandle(0x81000010 + i) //nolint:gosec // small
				create(t, d, tpm.CreateOptions{Algorithm: alg, Persistent: h, DA: true, Auth: signer.NewSecret([]byte("1234"))})
				checkSigns(t, openHandle(t, d, fmt.Sprintf("handle:%#x", uint32(h)), tpm.Options{Auth: password("1234", nil)}))
				k := openHandle(t, d, fmt.Sprintf("handle:%x", uint32(h)), tpm.Options{Auth: password("1234", nil)})
				checkSigns(t, k)
			})
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		s.CheckEmpty()
	}
}
