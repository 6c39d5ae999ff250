package policy_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// stepDER is a policy of one step as any writer may have made it.
func stepDER(cc uint32, body []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Uint64(uint64(cc)) })
			b.AddASN1(asn1.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(body) })
		})
	})
	return b.BytesOrPanic()
}

func TestParseBothFormsOfPCR(t *testing.T) {
	digest := bytes.Repeat([]byte{0xab}, 32)
	list := tpm2.Marshal(tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 7)},
		{Hash: tpm2.TPMAlgSHA1, PCRSelect: tpm2.PCClientCompatible.PCRs(23)},
	}})
	want := policy.PCR{Selection: selection(t, "sha256:0,7+sha1:23"), Digest: digest}
	for name, body := range map[string][]byte{
		"hash's":    append(bytes.Clone(list), digest...),
		"command's": append(append([]byte{0, 32}, digest...), list...),
	} {
		p, err := policy.Parse(tpm2.TPMAlgSHA256, stepDER(uint32(tpm2.TPMCCPolicyPCR), body), nil)
		if err != nil {
			t.Errorf("%s form: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(p.Steps, []policy.Step{want}) {
			t.Errorf("%s form: %v", name, p)
		}
		roundTrip(t, p)
	}
}

func TestRefusedByName(t *testing.T) {
	for cc, name := range map[tpm2.TPMCC]string{
		tpm2.TPMCCPolicyNV: "TPM2_PolicyNV", tpm2.TPMCCPolicySigned: "TPM2_PolicySigned", tpm2.TPMCCPolicyLocality: "TPM2_PolicyLocality",
		tpm2.TPMCCPolicyCounterTimer: "TPM2_PolicyCounterTimer", tpm2.TPMCCPolicyAuthorizeNV: "TPM2_PolicyAuthorizeNV",
		tpm2.TPMCCPolicyTemplate: "TPM2_PolicyTemplate", tpm2.TPMCCClear: "command 0x126", 0xfffffff: "command 0xfffffff",
	} {
		_, err := policy.Parse(tpm2.TPMAlgSHA256, stepDER(uint32(cc), nil), nil)
		if !errors.Is(err, policy.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	pcr := uint32(tpm2.TPMCCPolicyPCR)
	good := stepDER(uint32(tpm2.TPMCCPolicyAuthValue), nil)
	for name, der := range map[string][]byte{
		"empty": {}, "garbage": []byte("garbage"), "cut": good[:len(good)-1], "trailing": append(bytes.Clone(good), 0),
		"PCR without a body": stepDER(pcr, nil), "PCR of zeros": stepDER(pcr, make([]byte, 40)),
		"PCR cut":             stepDER(pcr, []byte{0, 0, 0, 1, 0, 11, 3, 1, 0, 0, 1, 2}),
		"AuthValue with more": stepDER(uint32(tpm2.TPMCCPolicyAuthValue), []byte{1}),
		"Or of none":          stepDER(uint32(tpm2.TPMCCPolicyOR), []byte{0, 0, 0, 0}),
		"Or of many":          stepDER(uint32(tpm2.TPMCCPolicyOR), []byte{255, 255, 255, 255}),
		"Secret cut":          stepDER(uint32(tpm2.TPMCCPolicySecret), []byte{0x40, 0, 0, 1, 0, 4, 0x40}),
		"Authorize cut":       stepDER(uint32(tpm2.TPMCCPolicyAuthorize), []byte{0, 9, 0, 1}),
	} {
		if p, err := policy.Parse(tpm2.TPMAlgSHA256, der, nil); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		if p, err := policy.Parse(tpm2.TPMAlgSHA256, nil, der); name != "empty" && !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("%s as authPolicy: %v, %v", name, p, err)
		}
	}
}

func TestParseSelection(t *testing.T) {
	for in, want := range map[string]string{
		"sha256:0,2,7+11": "sha256:0,2,7,11", "7": "sha256:7", "11+7,7": "sha256:7,11",
		"sha1:0,1+sha256:7": "sha1:0,1+sha256:7", "SHA384:23": "sha384:23", " sha256:0, 7 ": "sha256:0,7",
		"sha256:1+sha1:2+sha256:3": "sha256:1,3+sha1:2", "7:sha256+11:sha256": "sha256:7,11", "7:sha1+11": "sha1:7+sha256:11",
	} {
		sel, err := policy.ParseSelection(in)
		if err != nil || sel.String() != want {
			t.Errorf("%q: %v, %v, want %s", in, sel, err, want)
		}
	}
	for _, in := range []string{"", ",", "24", "sha256:", "md5:1", "-1", "sha256:7:8", "7:sha256:8", "sha1:sha256", "all"} {
		if sel, err := policy.ParseSelection(in); err == nil {
			t.Errorf("%q: %v", in, sel)
		}
	}
}

func TestSignedPCRsFile(t *testing.T) {
	text := `{"version":2,"by":"us","sha256":[{"pcrs":[11,7,7],"pkfp":"0a0b","pol":"0C","sig":"AQI=","new":1},{"pcrs":[11]}],"sha3":[],"sha1":[{"pcrs":[1],"pkfp":"aa","pol":"bb","sig":"cc=="}]}`
	s, err := policy.ParseSignedPCRs([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Entries) != 2 || s.Entries[1].Selection.String() != "sha256:7,11" || hex.EncodeToString(s.Entries[1].Policy) != "0c" {
		t.Errorf("%+v", s.Entries)
	}
	for _, bad := range []string{"", "[]", `{"sha256":{}}`, `{"sha256":[{"pcrs":[24],"pkfp":"aa","pol":"bb","sig":"cc=="}]}`,
		`{"sha256":[{"pcrs":[1],"pkfp":"zz","pol":"bb","sig":"cc=="}]}`, `{"sha256":[{"pcrs":[1],"pkfp":"aa","pol":"bb","sig":"?"}]}`,
		`{"sha256":[{"pcrs":[],"pkfp":"aa","pol":"bb","sig":"cc=="}]}`} {
		if _, err := policy.ParseSignedPCRs([]byte(bad)); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := policy.LoadSignedPCRs("/dev/zero", nil); !errors.Is(err, signer.ErrMalformed) {
		t.Errorf("a file without end: %v", err)
	}
	first, second := t.TempDir(), t.TempDir()
	if _, err := policy.LoadSignedPCRs("", []string{first, second}); !errors.Is(err, fs.ErrNotExist) || signer.Hint(err) == "" {
		t.Errorf("none anywhere: %v", err)
	}
	for dir, text := range map[string]string{second: text, first: `{}`} {
		if err := os.WriteFile(filepath.Join(dir, "other.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := policy.LoadSignedPCRs("other.json", []string{first, second}); err != nil || len(s.Entries) != 0 {
		t.Errorf("the first directory's is not taken: %v, %v", s, err)
	}
	if s, err := policy.LoadSignedPCRs(filepath.Join(second, "other.json"), nil); err != nil || len(s.Entries) != 2 {
		t.Errorf("by path: %v, %v", s, err)
	}
}

func TestSnapshotFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.pem")
	if s, err := policy.ReadSnapshot(file); s != nil || err != nil {
		t.Errorf("with no file: %v, %v", s, err)
	}
	for _, bad := range []string{``, `{}`, `{"version":2}`, `{"version":1,"pcrs":{"sha256":{"7":"00"}}}`, `{"version":1,"pcrs":{"sha256":{"x":"00"}}}`} {
		if err := os.WriteFile(policy.SnapshotPath(file), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := policy.ReadSnapshot(file); err == nil {
			t.Errorf("%s: %v", bad, s)
		}
	}
	want := &policy.Snapshot{Values: policy.Values{tpm2.TPMAlgSHA1: {0: make([]byte, 20)}, tpm2.TPMAlgSHA256: {7: make([]byte, 32)}}}
	if err := policy.WriteSnapshot(file, want); err != nil {
		t.Fatal(err)
	}
	if got, err := policy.ReadSnapshot(file); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDescribed(t *testing.T) {
	pcr := policy.PCR{Selection: selection(t, "0,7"), Digest: make([]byte, 32)}
	either, err := policy.Either(of(pcr), of(policy.AuthValue{}, ownerSecret, policy.CommandCode{Code: tpm2.TPMCCSign}))
	if err != nil {
		t.Fatal(err)
	}
	either.Alternatives[0].Name = "boot"
	want := `one of 2 policies {"boot": PCRs sha256:0,7 | the key's password, then the password of the owner hierarchy, then only TPM2_Sign}`
	if got := either.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := roundTrip(t, either); got.String() != want || !got.NeedsAuth() || !reflect.DeepEqual(got.PCRs(), []policy.PCR{pcr}) {
		t.Errorf("after parsing: %v", got)
	}
	if _, err := policy.Either(of(pcr)); err == nil {
		t.Error("an Or of one")
	}
	if _, err := policy.Either(either, of(pcr)); !errors.Is(err, policy.ErrUnsupported) {
		t.Errorf("an Or of Ors: %v", err)
	}
	for _, s := range []policy.Step{pcr, policy.AuthValue{}, authorizeBy(t, approvers(t)["EC"])} {
		if text := s.String(); text == "" || strings.Contains(text, "unknown") {
			t.Errorf("%T is described as %q", s, text)
		}
	}
	if dirs := policy.SignedPCRsDirs(); dirs[0] != "/etc/systemd" {
		t.Errorf("systemd searches %v", dirs)
	}
	for pcr := range 24 {
		if policy.DescribePCR(pcr) == "unknown" {
			t.Errorf("PCR %d is unknown", pcr)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	authorize := tpm2.Marshal(tpm2.New2B(tpm2.ECCSRKTemplate))
	f.Add(stepDER(uint32(tpm2.TPMCCPolicyAuthorize), append(authorize, 0, 0, 0, 0x10)), []byte{})
	f.Add(stepDER(uint32(tpm2.TPMCCPolicyAuthorize), append(authorize, 0, 0, 0, 0x18, 0, 0xb, 0, 1, 1, 0, 1, 1)), []byte{})
	f.Add(stepDER(uint32(tpm2.TPMCCPolicyAuthValue), nil), []byte{0x30, 0})
	f.Add(stepDER(uint32(tpm2.TPMCCPolicySecret), []byte{0x40, 0, 0, 1, 0, 4, 0x40, 0, 0, 1, 0, 0}), []byte{})
	f.Add(stepDER(uint32(tpm2.TPMCCPolicyPCR), binary.BigEndian.AppendUint16([]byte{0, 0, 0, 1, 0, 11, 3, 1, 0, 0}, 32)), []byte{})
	p := of(policy.PCR{Selection: selection(f, "7"), Digest: make([]byte, 32)})
	either, err := policy.Either(p, of(policy.AuthValue{}))
	if err != nil {
		f.Fatal(err)
	}
	a, b, err := either.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a, b)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		p, err := policy.Parse(tpm2.TPMAlgSHA256, a, b)
		if err != nil {
			if !errors.Is(err, signer.ErrMalformed) && !errors.Is(err, policy.ErrUnsupported) {
				t.Errorf("unexpected error %v", err)
			}
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		_ = p.String()
		if _, err := p.Digest(); err == nil {
			roundTrip(t, p)
		}
	})
}

func FuzzParseSignedPCRs(f *testing.F) {
	f.Add([]byte(`{"sha256":[{"pcrs":[11],"pkfp":"aa","pol":"bb","sig":"cc=="}]}`))
	f.Add([]byte(`{"sha1":[{"pcrs":[0,23],"pkfp":"","pol":"bb","sig":"cc=="}],"sha256":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := policy.ParseSignedPCRs(data)
		if err != nil {
			if !errors.Is(err, signer.ErrMalformed) {
				t.Errorf("unexpected error %v", err)
			}
			return
		}
		out, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := policy.ParseSignedPCRs(out); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%v, %v", again, err)
		}
	})
}
