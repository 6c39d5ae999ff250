package policy

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// A Snapshot is the PCR values a key was bound to, so that an error can say
// which of them moved. As JSON:
//
//	{"version":1,"pcrs":{"sha256":{"7":"65caf8dd…"}}}
type Snapshot struct {
	Values Values
}

// snapshotVersion is the format's; another is refused.
const snapshotVersion = 1

// maxFile is more than any file of this package has.
const maxFile = 1 << 20

// SnapshotPath is where the snapshot of a key file lies: next to it, with
// ".pcrs.json" added to its name.
func SnapshotPath(keyFile string) string { return keyFile + ".pcrs.json" }

type snapshotJSON struct {
	Version int                          `json:"version"`
	PCRs    map[string]map[string]string `json:"pcrs"`
}

// MarshalJSON encodes s.
func (s Snapshot) MarshalJSON() ([]byte, error) {
	out := snapshotJSON{snapshotVersion, map[string]map[string]string{}}
	for bank, pcrs := range s.Values {
		m := map[string]string{}
		for pcr, v := range pcrs {
			m[strconv.Itoa(pcr)] = hex.EncodeToString(v)
		}
		out.PCRs[bankName(bank)] = m
	}
	return json.Marshal(out)
}

// UnmarshalJSON decodes s. The error wraps [signer.ErrMalformed].
func (s *Snapshot) UnmarshalJSON(data []byte) error {
	var in snapshotJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return malformed("PCR snapshot: %v", err)
	}
	if in.Version != snapshotVersion {
		return malformed("PCR snapshot: version %d, where %d is known", in.Version, snapshotVersion)
	}
	v := Values{}
	for name, pcrs := range in.PCRs {
		bank, ok := bankHash(name)
		if !ok {
			continue
		}
		h, err := bank.Hash()
		if err != nil {
			return err
		}
		m := map[int][]byte{}
		for index, value := range pcrs {
			n, err := strconv.Atoi(index)
			if err != nil || n < 0 || n > maxPCR {
				return malformed("PCR snapshot: %q is no PCR", index)
			}
			b, err := hex.DecodeString(value)
			if err != nil || len(b) != h.Size() {
				return malformed("PCR snapshot: the value of PCR %d is no %s digest", n, name)
			}
			m[n] = b
		}
		v[bank] = m
	}
	s.Values = v
	return nil
}

// fits reports whether the snapshot holds the values step was made from.
func (s *Snapshot) fits(hash tpm2.TPMIAlgHash, step PCR) bool {
	if s == nil {
		return false
	}
	d, err := s.Values.Digest(hash, step.Selection)
	return err == nil && string(d) == string(step.Digest)
}

// ReadSnapshot reads the snapshot next to a key file. With none there it
// returns nil and no error.
func ReadSnapshot(keyFile string) (*Snapshot, error) {
	data, err := readFile(SnapshotPath(keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s Snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", SnapshotPath(keyFile), err)
	}
	return &s, nil
}

// WriteSnapshot writes the snapshot next to a key file, replacing another in
// one step.
func WriteSnapshot(keyFile string, s *Snapshot) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(SnapshotPath(keyFile), append(data, '\n'))
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("%s: %w: larger than 1 MiB", path, signer.ErrMalformed)
	}
	return data, err
}

// writeFile leaves the old file or the new one, never a part.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
