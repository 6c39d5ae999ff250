//go:build unix

package software

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/holdfast-iam/holdfast/signer"
)

// unreadable says of a file that may not be read who owns it, what its mode
// is, who asks, and what would mend that.
func unreadable(path string, err error) error {
	me := userName(os.Geteuid())
	info, statErr := os.Stat(path)
	if statErr == nil {
		owner := ownerOf(info)
		return signer.WithHint(
			fmt.Errorf("%s: %w: it is %s's with mode %04o, and holdfast runs as %s", oneLine(path), cause(err), owner, info.Mode().Perm(), me),
			fmt.Sprintf("run holdfast as %s, or give the file to %s: sudo chown %s %s", owner, me, me, shellQuote(path)))
	}
	// The way to the file is barred: name the first directory that does so.
	dir := filepath.Dir(path)
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if info, statErr = os.Stat(dir); statErr == nil {
			break
		}
	}
	if statErr != nil {
		return fmt.Errorf("%s: %w: holdfast runs as %s", oneLine(path), cause(err), me)
	}
	return signer.WithHint(
		fmt.Errorf("%s: %w: the directory %s is %s's with mode %04o, and holdfast runs as %s",
			oneLine(path), cause(err), oneLine(dir), ownerOf(info), info.Mode().Perm(), me),
		fmt.Sprintf("run holdfast as %s, or let %s into the directory: sudo setfacl -m u:%s:x %s", ownerOf(info), me, me, shellQuote(dir)))
}

// exposed warns of a private key that others than its owner may read or
// change, and returns "" for one that is not.
func exposed(path string, info fs.FileInfo) string {
	mode := info.Mode()
	var who string
	switch {
	case !mode.IsRegular():
		return ""
	case mode&0o006 != 0:
		who = "everyone"
	case mode&0o060 != 0:
		who = "its group"
	default:
		return ""
	}
	return fmt.Sprintf("%s: the private key is open to %s (mode %04o); run: chmod 600 %s", oneLine(path), who, mode.Perm(), shellQuote(path))
}

func ownerOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown"
	}
	return userName(int(st.Uid))
}

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
