package hosted

import (
	"bufio"
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

// How long a PIN is not presented again.
const (
	restRefused   = time.Hour
	restUncertain = time.Minute
)

const maxNotes = 8 // PINs remembered of a token

// notes tell the next process which PINs a token refused: a file for each
// token, named by a hash of what identifies it, that nobody else can read. A
// line holds a time, a state, a salt and 12 bits of PBKDF2 of the PIN. Whoever
// reads it learns of 4095 of 4096 PINs that they were not the one.
type notes struct {
	dir string
	log *slog.Logger
}

type note struct {
	at      time.Time
	certain bool
	salt    string
	image   string
}

func (n note) rest() time.Duration {
	if n.certain {
		return restRefused
	}
	return restUncertain
}

func imageOf(pin signer.Secret, salt string) string {
	sum, err := pbkdf2.Key(sha256.New, string(pin.Reveal()), []byte(salt), 20_000, 2)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(sum)[:3]
}

// check returns an error if a note says that the token refused the PIN lately.
func (ns *notes) check(token string, pin signer.Secret) error {
	path := ns.path(token, false)
	for _, n := range readNotes(path) {
		if n.image != imageOf(pin, n.salt) {
			continue
		}
		left := time.Until(n.at.Add(n.rest())).Round(time.Second)
		why := "the token refused it"
		if !n.certain {
			why = "the module failed when it was given, and may have refused it"
		}
		return signer.WithHint(
			fmt.Errorf("%w: %s at %s, so it is not tried again for %v", signer.ErrPINIncorrect, why, n.at.Format(time.TimeOnly), left),
			"correct the PIN: another one is tried at once; to try this one again, remove "+path)
	}
	return nil
}

func (ns *notes) write(token string, pin signer.Secret, certain bool) {
	path := ns.path(token, true)
	if path == "" {
		return
	}
	salt := rand.Text()
	all := append(readNotes(path), note{time.Now(), certain, salt, imageOf(pin, salt)})
	var text bytes.Buffer
	for _, n := range all[max(0, len(all)-maxNotes):] {
		fmt.Fprintf(&text, "%d %t %s %s\n", n.at.Unix(), n.certain, n.salt, n.image)
	}
	if err := replaceFile(path, text.Bytes()); err != nil {
		ns.log.Warn("a refused PIN could not be noted: another run may present it again", "error", err)
	}
}

func (ns *notes) clear(token string) {
	if path := ns.path(token, false); path != "" {
		_ = os.Remove(path) // mostly there is none
	}
}

// path returns the token's file, or "" if there is no safe place for it.
func (ns *notes) path(token string, create bool) string {
	dir := ns.dir
	if dir == "" {
		dir = stateDir()
	}
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			ns.log.Warn("no place to note a refused PIN: another run may present it again", "error", err)
			return ""
		}
	}
	if !isPrivate(dir) {
		if create {
			ns.log.Warn("not a directory of this user alone: another run may present a refused PIN again", "directory", dir)
		}
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return filepath.Join(dir, "pin-refused-"+hex.EncodeToString(sum[:8]))
}

// readNotes returns the notes that still count.
func readNotes(path string) []note {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []note
	for lines := bufio.NewScanner(f); lines.Scan() && len(all) < maxNotes; {
		var n note
		var at int64
		if _, err := fmt.Sscanf(lines.Text(), "%d %t %s %s", &at, &n.certain, &n.salt, &n.image); err != nil {
			continue
		}
		n.at = time.Unix(at, 0)
		if age := time.Since(n.at); age < n.rest() && age > -time.Minute {
			all = append(all, n)
		}
	}
	return all
}

func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".pin-refused-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
