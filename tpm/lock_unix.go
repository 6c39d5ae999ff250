//go:build unix

package tpm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-iam/holdfast/signer"
)

// maxJournal bounds what is read of a lock file.
const maxJournal = 1 << 16

// A lock is held by one process at a time for one TPM: flock on a file, which
// the kernel gives up when the process ends, however that happens. A second
// file, locked shared by those who wait, tells the holder of them.
type lock struct {
	dir, base string
	device    string // path of the device or socket, whose users may use the lock
	file      *os.File
	waiting   *os.File
	length    int  // of the journal in the file
	gaveWay   bool // to another process, at the last release
}

func newLock(dir string, p place) *lock {
	if dir == "" {
		dir = lockDir()
	}
	sum := sha256.Sum256([]byte(p.id))
	return &lock{dir: dir, base: fmt.Sprintf("holdfast-tpm-%x", sum[:8]), device: p.path}
}

// lockDir returns the same directory for as many users of the TPM as can be:
// a user's own comes second.
func lockDir() string {
	const system = "/run/lock"
	if unix.Access(system, unix.W_OK|unix.X_OK) == nil {
		return system
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return os.TempDir()
}

// acquire waits for the lock, and returns what an earlier holder could not
// clear up.
func (l *lock) acquire(ctx context.Context) (journal, error) {
	var err error
	if l.file == nil {
		if l.file, err = l.open(".lock"); err != nil {
			return journal{}, err
		}
	}
	if l.waiting == nil {
		if l.waiting, err = l.open(".wait"); err != nil {
			return journal{}, err
		}
	}
	if l.gaveWay {
		l.gaveWay = false
		if err := sleep(ctx, jitter(4*time.Millisecond)); err != nil {
			return journal{}, err
		}
	}
	if err := l.wait(ctx); err != nil {
		return journal{}, err
	}
	data, err := io.ReadAll(io.NewSectionReader(l.file, 0, maxJournal))
	if err != nil {
		return journal{}, errors.Join(err, flock(l.file, unix.LOCK_UN))
	}
	l.length = len(data)
	return parseJournal(data), nil
}

func (l *lock) wait(ctx context.Context) error {
	err := flock(l.file, unix.LOCK_EX|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	defer func() { _ = flock(l.waiting, unix.LOCK_UN) }()
	for {
		// Each time, for it fails while the holder looks.
		_ = flock(l.waiting, unix.LOCK_SH|unix.LOCK_NB)
		if err := sleep(ctx, jitter(2*time.Millisecond)); err != nil {
			return signer.WithHint(fmt.Errorf("in use by another process: %w", err),
				"see who holds it: fuser "+l.file.Name())
		}
		if err := flock(l.file, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
	}
}

// contended reports whether another process waits for the lock.
func (l *lock) contended() bool {
	err := flock(l.waiting, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_ = flock(l.waiting, unix.LOCK_UN)
	}
	return errors.Is(err, unix.EWOULDBLOCK)
}

// yield lets those who wait go first at the next acquire.
func (l *lock) yield() { l.gaveWay = true }

// record writes the journal down. It is there for the next holder of the lock
// if this process is killed, not if the machine goes down: so does the TPM.
func (l *lock) record(live registry, p pending) error {
	data := journal{live, p}.marshal()
	for len(data) < l.length {
		data = append(data, '\n') // in one write, so that a kill leaves no mixture
	}
	if _, err := l.file.WriteAt(data, 0); err != nil {
		return fmt.Errorf("%s: %w", l.file.Name(), err)
	}
	l.length = len(data)
	return nil
}

// recordBestEffort is for what is already done; should it fail, the next
// holder looks for handles that are gone, which harms nobody.
func (l *lock) recordBestEffort(live registry, p pending) { _ = l.record(live, p) }

// release gives up the lock. A journal that is dirty stays for the next holder.
func (l *lock) release(dirty bool) error {
	var err error
	if !dirty && l.length > 0 {
		err = l.file.Truncate(0)
		l.length = 0
	}
	return errors.Join(err, flock(l.file, unix.LOCK_UN))
}

func (l *lock) close() error {
	var all error
	for _, f := range []*os.File{l.file, l.waiting} {
		if f != nil {
			all = errors.Join(all, f.Close())
		}
	}
	l.file, l.waiting = nil, nil
	return all
}

// open opens a lock file, which whoever may use the TPM may lock. It stays when
// it is not needed any more: to remove it would let two processes hold it.
func (l *lock) open(suffix string) (*os.File, error) {
	path := filepath.Join(l.dir, l.base+suffix)
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	// Without O_CREAT first: fs.protected_regular refuses it for another
	// user's file in a sticky directory.
	f, err := os.OpenFile(path, flags, 0) //nolint:gosec // the path is ours
	if errors.Is(err, os.ErrNotExist) {
		mode, gid := l.sharedWith()
		f, err = os.OpenFile(path, flags|unix.O_CREAT, 0o600) //nolint:gosec // the path is ours
		if err == nil {
			if gid >= 0 {
				_ = f.Chown(-1, gid)
			}
			_ = f.Chmod(mode)
		}
	}
	if err != nil {
		return nil, signer.WithHint(fmt.Errorf("lock: %w", err),
			"all users of a TPM without a resource manager share this file; let them read and write it, or use /dev/tpmrm0")
	}
	info, err := f.Stat()
	if err == nil && !isOwn(info) {
		err = fmt.Errorf("lock %s: not a regular file, or one with another name", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// isOwn reports whether the file is nothing but a lock file: in a directory
// that all may write to, it could be a link to one of the user's own.
func isOwn(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().IsRegular() && ok && st.Nlink == 1
}

// sharedWith returns the permissions of the device: who may use it may lock it.
func (l *lock) sharedWith() (mode os.FileMode, gid int) {
	if l.device == "" {
		return 0o666, -1 // TCP
	}
	info, err := os.Stat(l.device)
	if err != nil {
		return 0o600, -1
	}
	mode, gid = 0o600|info.Mode().Perm()&0o066, -1
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		gid = int(st.Gid)
	}
	return mode, gid
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how) //nolint:gosec // descriptors are small
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
