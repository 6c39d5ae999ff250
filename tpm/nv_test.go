package tpm_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func certificates(t testing.TB, n int) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for range n {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, selfSigned(t, key))
	}
	return all
}

func TestCertificatesInNV(t *testing.T) {
	s, d := start(t)
	ctx := testContext(t)
	certs := certificates(t, 2)
	if _, err := tpm.ReadCertificates(ctx, d, 0x1800001, tpm.NVOptions{}); !errors.Is(err, signer.ErrCertificateNotFound) {
		t.Errorf("an index that is not there: %v", err)
	}
	if err := tpm.WriteCertificates(ctx, d, 0x1800001, certs, tpm.NVOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := tpm.ReadCertificates(ctx, d, 0x1800001, tpm.NVOptions{})
	if err != nil || len(got) != 2 || !got[0].Equal(certs[0]) || !got[1].Equal(certs[1]) {
		t.Errorf("read back: %v, %v", got, err)
	}
	if err := tpm.WriteCertificates(ctx, d, 0x1800001, certs[:1], tpm.NVOptions{}); !errors.Is(err, tpm.ErrHandleInUse) {
		t.Errorf("overwritten: %v", err)
	}
	if err := tpm.WriteCertificates(ctx, d, 0x1800001, certs[1:], tpm.NVOptions{Overwrite: true}); err != nil {
		t.Error(err)
	}
	if got, err = tpm.ReadCertificates(ctx, d, 0x1800001, tpm.NVOptions{}); err != nil || len(got) != 1 || !got[0].Equal(certs[1]) {
		t.Errorf("after overwriting: %v, %v", got, err)
	}

	// As other tools write them: in PEM, padded with ones.
	s.Run("tpm2_nvdefine", "0x1800002", "-C", "o", "-s", "2000", "-a", "ownerwrite|ownerread|authread|authwrite")
	s.Clear()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[0].Raw})
	writeNV(t, s, "0x1800002", append(text, bytes.Repeat([]byte{0xff}, 2000-len(text))...))
	if got, err = tpm.ReadCertificates(ctx, d, 0x1800002, tpm.NVOptions{}); err != nil || len(got) != 1 || !got[0].Equal(certs[0]) {
		t.Errorf("PEM: %v, %v", got, err)
	}
	if _, err := tpm.ReadCertificates(ctx, d, 0x81000001, tpm.NVOptions{}); !errors.Is(err, signer.ErrMalformed) {
		t.Errorf("not an index: %v", err)
	}
	s.CheckEmpty()
}

func writeNV(t *testing.T, s *tpmtest.TPM, index string, data []byte) {
	t.Helper()
	path := s.Dir() + "/nv"
	writeFile(t, path, data)
	s.Run("tpm2_nvwrite", index, "-C", "o", "-i", path)
	s.Clear()
}
