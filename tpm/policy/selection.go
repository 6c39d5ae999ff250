package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// maxPCR is the highest PCR index a PC client TPM has.
const maxPCR = 23

// A Selection is a list of PCR banks, in the order that digests take them in.
type Selection []Bank

// A Bank is the PCRs chosen of one hash algorithm, ascending, each once.
type Bank struct {
	Hash tpm2.TPMIAlgHash
	PCRs []int
}

var banks = []struct {
	name string
	hash tpm2.TPMIAlgHash
}{
	{"sha1", tpm2.TPMAlgSHA1}, {"sha256", tpm2.TPMAlgSHA256},
	{"sha384", tpm2.TPMAlgSHA384}, {"sha512", tpm2.TPMAlgSHA512},
}

func bankName(h tpm2.TPMIAlgHash) string {
	for _, b := range banks {
		if b.hash == h {
			return b.name
		}
	}
	return fmt.Sprintf("bank %#x", uint16(h))
}

func bankHash(name string) (tpm2.TPMIAlgHash, bool) {
	for _, b := range banks {
		if strings.EqualFold(b.name, name) {
			return b.hash, true
		}
	}
	return 0, false
}

// ParseSelection reads "sha256:0,2,7+11". A comma and a plus sign both go on
// to the next PCR, or to the next bank where a bank's name follows:
// "sha1:0+sha256:7". PCRs without a bank are of SHA-256. systemd's "7:sha256" is
// understood too; there the bank is that one PCR's.
func ParseSelection(s string) (Selection, error) {
	var sel Selection
	current := tpm2.TPMAlgSHA256
	for _, field := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == '+' }) {
		field = strings.TrimSpace(field)
		bank, number := current, field
		if before, after, named := strings.Cut(field, ":"); named {
			var ok bool
			if bank, ok = bankHash(after); ok {
				number = before
			} else if bank, ok = bankHash(before); ok {
				number, current = after, bank
			} else {
				return nil, fmt.Errorf("PCR selection %q: %q is no PCR bank (sha1, sha256, sha384 or sha512)", s, before)
			}
		}
		n, err := strconv.ParseUint(number, 10, 8)
		if err != nil || n > maxPCR {
			return nil, fmt.Errorf("PCR selection %q: %q is no PCR (0 to %d)", s, number, maxPCR)
		}
		i := slices.IndexFunc(sel, func(b Bank) bool { return b.Hash == bank })
		if i < 0 {
			i, sel = len(sel), append(sel, Bank{Hash: bank})
		}
		sel[i].PCRs = append(sel[i].PCRs, int(n))
	}
	if len(sel) == 0 {
		return nil, fmt.Errorf("PCR selection %q names no PCR", s)
	}
	for i := range sel {
		slices.Sort(sel[i].PCRs)
		sel[i].PCRs = slices.Compact(sel[i].PCRs)
	}
	return sel, nil
}

// String is the selection as [ParseSelection] reads it.
func (s Selection) String() string {
	var all []string
	for _, b := range s {
		var n []string
		for _, p := range b.PCRs {
			n = append(n, strconv.Itoa(p))
		}
		all = append(all, bankName(b.Hash)+":"+strings.Join(n, ","))
	}
	return strings.Join(all, "+")
}

// TPM returns the selection as TPM commands take it.
func (s Selection) TPM() tpm2.TPMLPCRSelection {
	var l tpm2.TPMLPCRSelection
	for _, b := range s {
		var pcrs []uint
		for _, p := range b.PCRs {
			pcrs = append(pcrs, uint(p))
		}
		l.PCRSelections = append(l.PCRSelections, tpm2.TPMSPCRSelection{Hash: b.Hash, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)})
	}
	return l
}

// SelectionOf reads the TPM's form of a selection.
func SelectionOf(l tpm2.TPMLPCRSelection) (Selection, error) {
	var sel Selection
	for _, t := range l.PCRSelections {
		if _, err := t.Hash.Hash(); err != nil {
			return nil, fmt.Errorf("policy: %w: PCR bank %#x", ErrUnsupported, uint16(t.Hash))
		}
		b := Bank{Hash: t.Hash}
		for i, bits := range t.PCRSelect {
			for bit := range 8 {
				if bits&(1<<bit) != 0 {
					b.PCRs = append(b.PCRs, 8*i+bit)
				}
			}
		}
		if len(t.PCRSelect) != 3 {
			return nil, fmt.Errorf("policy: %w: a PCR selection of %d bytes, not 3", ErrUnsupported, len(t.PCRSelect))
		}
		sel = append(sel, b)
	}
	return sel, nil
}

// DescribePCR says what firmware and boot loaders measure into a PCR (TCG PC
// Client Platform Firmware Profile, UAPI's Linux TPM PCR registry).
func DescribePCR(pcr int) string {
	names := [...]string{
		"firmware code", "firmware configuration", "option ROM code", "option ROM configuration",
		"boot loader code", "boot loader configuration and partition table", "platform manufacturer", "secure boot state",
		"kernel command line, GRUB", "kernel and initrd, GRUB", "IMA", "unified kernel image",
		"kernel command line and credentials", "system extensions", "shim MOK list", "system identity",
		"debug",
	}
	switch {
	case pcr >= 0 && pcr < len(names):
		return names[pcr]
	case pcr >= 17 && pcr <= 22:
		return "dynamic root of trust"
	case pcr == 23:
		return "application"
	}
	return "unknown"
}
