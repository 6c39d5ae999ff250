package tpm

import (
	"bufio"
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

// A wrong password under dictionary attack protection costs a try, and a
// program that is restarted in a loop would present it at every start, until
// none is left that holdfast may use. So what the TPM refused is remembered
// between processes: in a file beside the locks, for each key or other object
// of the TPM, that nobody else can read. A line holds a time, a salt and 12 bits
// of PBKDF2 of the password. Whoever reads it learns of 4095 of 4096 passwords
// that they were not the wrong one.

// refusalLife is how long a refusal is remembered; TPMs forget one try in less.
const refusalLife = 4 * time.Hour

const maxRefusals = 8 // passwords remembered of an object

type refusal struct {
	at    time.Time
	salt  string
	image string
}

func imageOf(secret []byte, salt string) string {
	sum, err := pbkdf2.Key(sha256.New, string(secret), []byte(salt), 20_000, 2)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(sum)[:3]
}

// wasRefused returns an error if the TPM refused the credential lately.
func (d *Device) wasRefused(c *credential) error {
	path := d.refusalPath(c.name)
	for _, r := range refusals(path) {
		if r.image != imageOf(c.secret, r.salt) {
			continue
		}
		hint := "give the right password: another one is tried at once; to try this one again, remove " + path
		why := "the TPM refused it at " + r.at.Format(time.TimeOnly) + ", and it is not tried again so soon"
		if len(c.secret) == 0 {
			if h := signer.Hint(c.required()); h != "" {
				hint = h + "; to try again without one, remove " + path
			}
			return signer.WithHint(fmt.Errorf("%w: %s", c.required(), why), hint)
		}
		return signer.WithHint(c.incorrect(why), hint)
	}
	return nil
}

// remember and forgive are best effort.
func (d *Device) remember(c *credential) {
	path := d.refusalPath(c.name)
	salt := rand.Text()
	all := append(refusals(path), refusal{time.Now(), salt, imageOf(c.secret, salt)})
	var text bytes.Buffer
	for _, r := range all[max(0, len(all)-maxRefusals):] {
		fmt.Fprintf(&text, "%d %s %s\n", r.at.Unix(), r.salt, r.image)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".holdfast-tpm-refused-")
	if err != nil {
		return
	}
	_, err = f.Write(text.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

func (d *Device) forgive(c *credential) { _ = os.Remove(d.refusalPath(c.name)) }

func (d *Device) refusalPath(name []byte) string {
	dir := d.lockDir
	if dir == "" {
		dir = lockDir()
	}
	n := hex.EncodeToString(name)
	return filepath.Join(dir, fmt.Sprintf("holdfast-tpm-refused-%d-%s", os.Geteuid(), n[:min(len(n), 40)]))
}

// refusals returns those in a file that still count.
func refusals(path string) []refusal {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || !ownFile(info) {
		return nil
	}
	f, err := os.Open(path) //nolint:gosec // the path is ours
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []refusal
	for lines := bufio.NewScanner(f); lines.Scan() && len(all) < maxRefusals; {
		var r refusal
		var at int64
		if _, err := fmt.Sscanf(lines.Text(), "%d %s %s", &at, &r.salt, &r.image); err != nil {
			continue
		}
		r.at = time.Unix(at, 0)
		if age := time.Since(r.at); age < refusalLife && age > -time.Minute {
			all = append(all, r)
		}
	}
	return all
}
