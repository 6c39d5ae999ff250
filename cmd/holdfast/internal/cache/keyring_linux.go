package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Keyring keeps entries in the Linux kernel: memory that is never swapped and
// that no file system shows (keyrings(7)).
//
// Entries hang on the user's persistent keyring, which outlives log-ins and is
// the same for shells, cron and systemd's services; where the kernel has none,
// on the user keyring. Neither need be linked to the session keyring (a
// service's is empty), so each operation first links it to the keyring of its
// own thread: that makes this process a possessor, as which alone an entry can
// be found or read, and leaves no trace.
//
// A key is complete, with its permissions and its expiry, before it is linked
// where others see it. The type is "user", or "big_key" when the quota of the
// user (20,000 bytes by default) is used up.
type Keyring struct{}

const (
	keyPrefix = "holdfast:session:"
	// keyPosAll is KEY_POS_ALL: everything for possessors, nothing for the
	// user, the group and others.
	keyPosAll = 0x3f000000
)

var keyTypes = [...]string{"user", "big_key"}

// OpenKeyring returns the user's keyring, or an error that wraps
// [ErrUnavailable] where there is none: old kernels, and containers whose
// seccomp profile refuses keyctl.
func OpenKeyring() (*Keyring, error) {
	k := &Keyring{}
	return k, k.do(func(int) error { return nil })
}

// KeyringIsPrivate reports whether the keyring belongs to the user of this
// machine alone. Keyrings are divided by user namespace, not by container:
// without one of its own, uid 1000 of one container reads what uid 1000 of
// another stored.
func KeyringIsPrivate() bool {
	const initialPID, initialUser = "pid:[4026531836]", "user:[4026531837]" // include/linux/proc_ns.h
	pid, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	if pid == initialPID {
		return true
	}
	user, err := os.Readlink("/proc/self/ns/user")
	return err == nil && user != initialUser
}

// do calls f with the keyring that holds the entries, as a possessor of it.
func (*Keyring) do(f func(ring int) error) error {
	runtime.LockOSThread() // the thread keyring is the thread's
	defer runtime.UnlockOSThread()
	ring, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, -1, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	if err != nil {
		ring = unix.KEY_SPEC_USER_KEYRING
		if _, err = unix.KeyctlInt(unix.KEYCTL_LINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0); err != nil {
			return fmt.Errorf("kernel keyring: %w: %w", ErrUnavailable, err)
		}
	}
	return f(ring)
}

// Name returns "keyring".
func (*Keyring) Name() string { return "keyring" }

// Get implements [Store].
func (k *Keyring) Get(key string) (entry []byte, err error) {
	err = k.do(func(ring int) error {
		id, err := search(ring, key)
		if err == nil {
			entry, err = read(id)
		}
		return err
	})
	return entry, keyError("read", err)
}

// Put implements [Store].
func (k *Keyring) Put(key string, entry []byte, expires time.Time) error {
	return keyError("store", k.do(func(ring int) error {
		seconds := int(time.Until(expires) / time.Second)
		if seconds <= 0 {
			return nil // a timeout of 0 would mean none
		}
		var err error
		for i, typ := range keyTypes {
			if err = link(ring, typ, keyPrefix+key, entry, seconds); err == nil {
				remove(ring, keyTypes[1-i], key) // of an earlier time, with another quota
				return nil
			}
			if !errors.Is(err, unix.EDQUOT) {
				break
			}
		}
		return err
	}))
}

// link makes a key and then lets it take the place of the one before it.
func link(ring int, typ, description string, payload []byte, seconds int) error {
	id, err := unix.AddKey(typ, description, payload, unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return err
	}
	defer unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0) //nolint:errcheck // it goes with the thread
	if err := unix.KeyctlSetperm(id, keyPosAll); err != nil {
		return err
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, seconds, 0, 0); err != nil {
		return err
	}
	_, err = unix.KeyctlInt(unix.KEYCTL_LINK, id, ring, 0, 0)
	return err
}

// List implements [Store].
func (k *Keyring) List() (keys []string, err error) {
	err = k.do(func(ring int) error {
		ids, err := read(ring)
		if err != nil {
			return err
		}
		for ; len(ids) >= 4; ids = ids[4:] {
			description, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, int(int32(binary.NativeEndian.Uint32(ids))))
			if err != nil {
				continue // it expired
			}
			// type;uid;gid;permissions;description
			if _, key, ok := strings.Cut(description, ";"+keyPrefix); ok {
				keys = append(keys, key)
			}
		}
		return nil
	})
	return keys, keyError("list", err)
}

// Delete implements [Store].
func (k *Keyring) Delete(key string) error {
	return keyError("remove", k.do(func(ring int) error {
		for _, typ := range keyTypes {
			remove(ring, typ, key)
		}
		return nil
	}))
}

// remove forgets a key if there is one, at once and for every holder.
func remove(ring int, typ, key string) {
	if id, err := unix.KeyctlSearch(ring, typ, keyPrefix+key, 0); err == nil {
		_, _ = unix.KeyctlInt(unix.KEYCTL_INVALIDATE, id, 0, 0, 0) // gone already is as good
	}
}

func search(ring int, key string) (id int, err error) {
	for _, typ := range keyTypes {
		if id, err = unix.KeyctlSearch(ring, typ, keyPrefix+key, 0); err == nil {
			break
		}
	}
	return id, err
}

// read returns a key's payload; a keyring's are the serials of its keys.
func read(id int) ([]byte, error) {
	for b := make([]byte, 4096); ; {
		n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, b, 0)
		if err != nil {
			return nil, err
		}
		if n <= len(b) {
			return b[:n], nil
		}
		b = make([]byte, n)
	}
}

func keyError(doing string, err error) error {
	for _, none := range []error{unix.ENOKEY, unix.EKEYEXPIRED, unix.EKEYREVOKED} {
		if errors.Is(err, none) {
			return ErrNotFound
		}
	}
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("kernel keyring: %s: %w", doing, err)
}
