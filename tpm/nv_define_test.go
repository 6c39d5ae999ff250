package tpm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func TestParseNVIndex(t *testing.T) {
	for ref, want := range map[string]tpm2.TPMHandle{
		"handle:0x01800001": 0x1800001, "handle:1800001": 0x1800001, "HANDLE:0X01c00002": 0x1c00002, "0x01500000": 0x1500000, "01ffffff": 0x1ffffff,
	} {
		if got, err := tpm.ParseNVIndex(ref); err != nil || got != want {
			t.Errorf("%s: %#x, %v", ref, uint32(got), err)
		}
	}
	for _, ref := range []string{"", "handle:", "handle:0x81000001", "0x02000000", "handle:0x0", "0x101800001", "handle:handle:0x01800001", "0x-1800001", "nv"} {
		if got, err := tpm.ParseNVIndex(ref); !errors.Is(err, signer.ErrMalformed) || signer.Hint(err) == "" {
			t.Errorf("%s: %#x, %v", ref, uint32(got), err)
		}
	}
}

// An index is not left behind that could not be filled.
func TestNVNotFilled(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	certs := certificates(t, 2)
	writes := 0
	p.Fault(func(code uint32, _ []byte) (uint32, bool) {
		if tpm2.TPMCC(code) == tpm2.TPMCCNVWrite {
			writes++
		}
		return uint32(tpm2.TPMRCNVUnavailable), tpm2.TPMCC(code) == tpm2.TPMCCNVWrite && writes == 2
	})
	if err := tpm.WriteCertificates(testContext(t), d, 0x1800001, certs, tpm.NVOptions{}); !errors.Is(err, tpm2.TPMRCNVUnavailable) || writes != 2 {
		t.Errorf("%v, after %d writes", err, writes)
	}
	if got := s.Run("tpm2_getcap", "handles-nv-index"); strings.Contains(strings.ToLower(got), "1800001") {
		t.Errorf("it is still there: %s", got)
	}
	s.Clear()
	if err := tpm.WriteCertificates(testContext(t), d, 0x1800001, certs, tpm.NVOptions{}); err != nil {
		t.Errorf("once more: %v", err)
	}
	// An index that was there stays, with what it has.
	writes = 1
	if err := tpm.WriteCertificates(testContext(t), d, 0x1800001, certs[:1], tpm.NVOptions{Overwrite: true}); err == nil {
		t.Error("the write did not fail")
	}
	got, err := tpm.ReadCertificates(testContext(t), d, 0x1800001, tpm.NVOptions{})
	if err != nil || len(got) != 2 {
		t.Errorf("%d certificates, %v", len(got), err)
	}
}

// A renewed certificate is somewhat longer than the one before.
func TestNVRoom(t *testing.T) {
	s, d := start(t)
	certs := certificates(t, 1)
	if err := tpm.WriteCertificates(testContext(t), d, 0x1800001, certs, tpm.NVOptions{}); err != nil {
		t.Fatal(err)
	}
	data, err := tpm.ReadNV(testContext(t), d, 0x1800001, tpm.NVOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(data) < len(certs[0].Raw)+32 {
		t.Errorf("an index of %d bytes for %d", len(data), len(certs[0].Raw))
	}
	many := slices.Repeat(certs, 10)
	if err := tpm.WriteCertificates(testContext(t), d, 0x1800002, many, tpm.NVOptions{}); err == nil || !strings.Contains(err.Error(), "at most") || signer.Hint(err) == "" {
		t.Errorf("more than an index holds: %v", err)
	}
	s.CheckEmpty()
}
