package policy

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// SignedPCRsName is the file of signed PCR policies that systemd-stub,
// systemd-measure and systemd-cryptsetup use.
const SignedPCRsName = "tpm2-pcr-signature.json"

// SignedPCRsDirs are the directories searched for it, the first first, as by
// systemd.
func SignedPCRsDirs() []string {
	return []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"}
}

// SignedPCRs is a file of signed PCR policies:
//
//	{"sha256":[{"pcrs":[11],"pkfp":"…","pol":"…","sig":"…"}]}
type SignedPCRs struct {
	Entries []SignedEntry

	path string
}

// A SignedEntry approves one set of PCR values.
type SignedEntry struct {
	// Selection is always of one bank.
	Selection Selection

	// KeyFingerprint is the approver's, see [Fingerprint].
	KeyFingerprint []byte

	// Policy is the digest of a policy of one [PCR] step.
	Policy []byte

	// Signature over Policy, with SHA-256: PKCS#1 v1.5 for RSA as systemd has
	// it, ASN.1 DER for ECDSA, which systemd does not know.
	Signature []byte
}

type entryJSON struct {
	PCRs []int  `json:"pcrs"`
	PKFP string `json:"pkfp"`
	Pol  string `json:"pol"`
	Sig  string `json:"sig"`
}

// ParseSignedPCRs reads such a file. Fields that are no bank of today's TPMs and
// entries that lack a field are passed over, as systemd does. The error wraps
// [signer.ErrMalformed].
func ParseSignedPCRs(data []byte) (*SignedPCRs, error) {
	var in map[string]json.RawMessage
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, malformed("signed PCRs: %v", err)
	}
	s := &SignedPCRs{}
	for _, b := range banks { // for the order
		if in[b.name] == nil {
			continue
		}
		var entries []entryJSON
		if err := json.Unmarshal(in[b.name], &entries); err != nil {
			return nil, malformed("signed PCRs: %s: %v", b.name, err)
		}
		for i, e := range entries {
			if e.PCRs == nil || e.PKFP == "" || e.Pol == "" || e.Sig == "" {
				continue
			}
			out, err := e.decode(b.hash)
			if err != nil {
				return nil, fmt.Errorf("%s entry %d: %w", b.name, i+1, err)
			}
			s.Entries = append(s.Entries, out)
		}
	}
	return s, nil
}

func (e entryJSON) decode(bank tpm2.TPMIAlgHash) (out SignedEntry, err error) {
	pcrs := slices.Sorted(slices.Values(e.PCRs))
	pcrs = slices.Compact(pcrs)
	if len(pcrs) == 0 || pcrs[0] < 0 || pcrs[len(pcrs)-1] > maxPCR {
		return out, malformed("signed PCRs: no PCR, or one that is none: %v", e.PCRs)
	}
	out.Selection = Selection{{bank, pcrs}}
	if out.KeyFingerprint, err = hex.DecodeString(e.PKFP); err != nil {
		return out, malformed("signed PCRs: pkfp is not hexadecimal")
	}
	if out.Policy, err = hex.DecodeString(e.Pol); err != nil {
		return out, malformed("signed PCRs: pol is not hexadecimal")
	}
	if out.Signature, err = base64.StdEncoding.DecodeString(e.Sig); err != nil {
		return out, malformed("signed PCRs: sig is not base64")
	}
	return out, nil
}

// Marshal returns the file's contents.
func (s *SignedPCRs) Marshal() ([]byte, error) {
	out := map[string][]entryJSON{}
	for _, e := range s.Entries {
		if len(e.Selection) != 1 {
			return nil, fmt.Errorf("policy: %w: the file of signed PCRs has no room for PCRs of several banks at once", ErrUnsupported)
		}
		name := bankName(e.Selection[0].Hash)
		out[name] = append(out[name], entryJSON{
			PCRs: e.Selection[0].PCRs, PKFP: hex.EncodeToString(e.KeyFingerprint),
			Pol: hex.EncodeToString(e.Policy), Sig: base64.StdEncoding.EncodeToString(e.Signature),
		})
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// Add adds an entry, in the place of one for the same values and key.
func (s *SignedPCRs) Add(e SignedEntry) {
	s.Entries = slices.DeleteFunc(s.Entries, func(o SignedEntry) bool {
		return string(o.Policy) == string(e.Policy) && string(o.KeyFingerprint) == string(e.KeyFingerprint)
	})
	s.Entries = append(s.Entries, e)
}

// LoadSignedPCRs reads a file of signed PCR policies. A path with a slash is
// read as it is; a bare name, or [SignedPCRsName] for "", is searched for in
// dirs. With none found the error wraps fs.ErrNotExist and carries a hint.
func LoadSignedPCRs(path string, dirs []string) (*SignedPCRs, error) {
	name := path
	if name == "" {
		name = SignedPCRsName
	}
	if filepath.Base(name) != name {
		return loadSignedPCRs(path)
	}
	for _, dir := range dirs {
		s, err := loadSignedPCRs(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return s, err
	}
	return nil, signer.WithHint(fmt.Errorf("signed PCR policies: %s: %w in %s", name, fs.ErrNotExist, strings.Join(dirs, ", ")),
		"name the file, or have holdfast (key approve, or key reseal) or systemd-measure make it")
}

func loadSignedPCRs(path string) (*SignedPCRs, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("signed PCR policies: %w", err)
	}
	s, err := ParseSignedPCRs(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.path = path
	return s, nil
}

// WriteSignedPCRs writes the file at path, replacing another in one step.
func WriteSignedPCRs(path string, s *SignedPCRs) error {
	data, err := s.Marshal()
	if err != nil {
		return err
	}
	return writeFile(path, data)
}

// by returns the entries of one approver.
func (s *SignedPCRs) by(fingerprint []byte) []SignedEntry {
	if s == nil {
		return nil
	}
	var all []SignedEntry
	for _, e := range s.Entries {
		if string(e.KeyFingerprint) == string(fingerprint) {
			all = append(all, e)
		}
	}
	return all
}

func (s *SignedPCRs) name() string {
	if s.path == "" {
		return "the signed PCR policies"
	}
	return s.path
}
