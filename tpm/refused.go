package tpm

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A key file that says its key has no password is believed without a look at
// the lock-out counters. Should it be wrong about a key under dictionary attack
// protection, every start of a program that is restarted in a loop would cost a
// try. So the first refusal is remembered between processes, in a file beside
// the locks.

// refusalLife is how long a refusal is remembered; TPMs forget one try in less.
const refusalLife = 4 * time.Hour

func (d *Device) refusalPath(name []byte) string {
	dir := d.lockDir
	if dir == "" {
		dir = lockDir()
	}
	n := hex.EncodeToString(name)
	return filepath.Join(dir, fmt.Sprintf("holdfast-tpm-refused-%d-%s", os.Geteuid(), n[:min(len(n), 40)]))
}

// wasRefused reports whether the empty password of the key was refused lately.
func (d *Device) wasRefused(name []byte) bool {
	info, err := os.Lstat(d.refusalPath(name))
	return err == nil && info.Mode().IsRegular() && ownFile(info) && time.Since(info.ModTime()) < refusalLife
}

// remember is best effort.
func (d *Device) remember(name []byte, what string) {
	path := d.refusalPath(name)
	_ = os.Remove(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the path is ours
	if err != nil {
		return
	}
	_, _ = fmt.Fprintf(f, "the empty password of %s was refused; remove this file to try it again\n", strings.ToValidUTF8(what, "?"))
	_ = f.Close()
}
