package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// A verdict is what csr verify --json prints.
type verdict struct {
	Verified bool   `json:"verified"` // the evidence is sound
	Proven   bool   `json:"proven"`   // and of the TPM it names
	Fresh    bool   `json:"fresh"`    // and made for the nonce
	Error    string `json:"error,omitempty"`
	Subject  string `json:"subject,omitempty"`

	Key  *verdictKey                  `json:"key,omitempty"`
	TPM  *verdictTPM                  `json:"tpm,omitempty"`
	PCRs map[string]map[string]string `json:"pcrs,omitempty"`
}

type verdictKey struct {
	Type         string `json:"type"`
	Name         string `json:"name"`
	Policy       string `json:"policy,omitempty"`
	UserWithAuth bool   `json:"userWithAuth"`
	NoDA         bool   `json:"noDA"`
	Decrypts     bool   `json:"decrypts"`
}

type verdictTPM struct {
	EKFingerprint   string     `json:"ekFingerprint"`
	EKIssuer        string     `json:"ekIssuer,omitempty"`
	EKSerial        string     `json:"ekSerial,omitempty"`
	EKNotAfter      *time.Time `json:"ekNotAfter,omitempty"`
	AttestationKey  string     `json:"attestationKey"`
	Manufacturer    string     `json:"manufacturer,omitempty"`
	Model           string     `json:"model,omitempty"`
	Version         string     `json:"version,omitempty"`
	FirmwareVersion string     `json:"firmwareVersion"`
}

// verdict works on nil too, which is evidence that was refused.
func (c *checked) verdict(refused error) verdict {
	v := verdict{}
	if refused != nil {
		v.Error = term.Clean(refused.Error())
	}
	if c == nil {
		return v
	}
	v.Verified, v.Proven, v.Fresh, v.Subject = true, c.Proven, c.Fresh, c.request.Subject.String()
	a := c.Public.ObjectAttributes
	v.Key = &verdictKey{
		Type: signer.DescribeKey(c.PublicKey), Name: hex.EncodeToString(c.KeyName),
		Policy: hex.EncodeToString(c.Public.AuthPolicy.Buffer), UserWithAuth: a.UserWithAuth, NoDA: a.NoDA, Decrypts: a.Decrypt,
	}
	v.TPM = &verdictTPM{
		EKFingerprint: hex.EncodeToString(c.EKFingerprint), AttestationKey: hex.EncodeToString(c.Binding.AK),
		Manufacturer: c.Manufacturer, Model: c.Model, Version: c.Version, FirmwareVersion: c.firmware(),
	}
	if ek := c.EKCertificate; ek != nil {
		v.TPM.EKIssuer, v.TPM.EKSerial, v.TPM.EKNotAfter = ek.Issuer.String(), ek.SerialNumber.Text(16), &ek.NotAfter
	}
	for bank, pcrs := range c.PCRs {
		if v.PCRs == nil {
			v.PCRs = map[string]map[string]string{}
		}
		values := map[string]string{}
		for pcr, value := range pcrs {
			values[fmt.Sprint(pcr)] = hex.EncodeToString(value)
		}
		v.PCRs[bankOf(bank)] = values
	}
	return v
}

// print says the same in words.
func (c *checked) print(w io.Writer) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", label, term.Clean(fmt.Sprintf(format, args...)))
	}
	line("request", "%s", c.request.Subject)
	line("key", "%s; made in the TPM, cannot leave it", signer.DescribeKey(c.PublicKey))
	line("", "%s", c.use())
	line("TPM", "%s", c.maker())
	line("", "firmware %s, endorsement key %x", c.firmware(), c.EKFingerprint)
	banks := make([]tpm2.TPMIAlgHash, 0, len(c.PCRs))
	for bank := range c.PCRs {
		banks = append(banks, bank)
	}
	slices.Sort(banks)
	for _, bank := range banks {
		pcrs := make([]int, 0, len(c.PCRs[bank]))
		for pcr := range c.PCRs[bank] {
			pcrs = append(pcrs, pcr)
		}
		slices.Sort(pcrs)
		for _, pcr := range pcrs {
			line("PCR", "%s:%d %x (%s)", bankOf(bank), pcr, c.PCRs[bank][pcr], policy.DescribePCR(pcr))
		}
	}
	if c.Fresh {
		line("fresh", "made for this enrolment's nonce")
	} else {
		line("not fresh", "may be of any age: no nonce was asked for")
	}
	b.WriteString("\n")
	if c.Proven {
		line("proven", "this key is in this TPM: it answered a challenge that no other could")
	} else {
		line("NOT PROVEN", "all of the above is the device's claim until the TPM has answered a challenge")
	}
	open := "which machine the TPM is in; who else may use the key there"
	if len(c.PCRs) == 0 {
		open += "; what software runs (no PCRs were quoted)"
	}
	line("not known", "%s", open)
	_, err := io.WriteString(w, b.String())
	return err
}

// use says what it takes to sign with the key.
func (c *checked) use() string {
	a := c.Public.ObjectAttributes
	var ways []string
	if a.UserWithAuth {
		guess := ", which is protected against guessing"
		if a.NoDA {
			guess = ""
		}
		ways = append(ways, "with its password if it has one"+guess)
	}
	if len(c.Public.AuthPolicy.Buffer) > 0 {
		ways = append(ways, fmt.Sprintf("by its policy %x", c.Public.AuthPolicy.Buffer))
	}
	if len(ways) == 0 {
		return "of no use to anybody: neither a password nor a policy will do"
	}
	what := "signs "
	if a.Decrypt {
		what = "signs and decrypts "
	}
	return what + strings.Join(ways, ", or ")
}

// maker is who made the TPM, as far as that is vouched for.
func (c *checked) maker() string {
	if c.EKCertificate == nil {
		return "of an endorsement key that is trusted by its fingerprint"
	}
	name := c.Manufacturer
	if id, err := hex.DecodeString(strings.TrimPrefix(name, "id:")); err == nil && len(id) == 4 {
		if text := strings.TrimRight(string(id), " \x00"); text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '!' || r > '~' }) {
			name += " (" + text + ")"
		}
	}
	return fmt.Sprintf("made by %s, model %s, version %s; certified by %q", name, c.Model, c.Version, c.EKCertificate.Issuer)
}

func (c *checked) firmware() string {
	return fmt.Sprintf("%08x.%08x", c.Firmware>>32, c.Firmware&0xffffffff)
}

// bankOf names a PCR bank as policy.Selection does.
func bankOf(h tpm2.TPMIAlgHash) string {
	name, _, _ := strings.Cut(policy.Selection{{Hash: h, PCRs: []int{0}}}.String(), ":")
	return name
}
