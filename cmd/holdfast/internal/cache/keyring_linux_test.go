package cache

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKeyring runs itself again in a user namespace of its own, which has
// keyrings of its own: it neither sees nor leaves anything of this user's.
func TestKeyring(t *testing.T) {
	const inside = "HOLDFAST_TEST_KEYRING"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKeyring$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestKeyring/") {
			t.Fatalf("in a user namespace (allow them: sysctl user.max_user_namespaces=1000): %v\n%s", err, out)
		}
		return
	}
	if serial := os.Getenv("HOLDFAST_TEST_SERIAL"); serial != "" {
		stranger(t, serial)
		return
	}
	k, err := OpenKeyring()
	if err != nil {
		t.Fatalf("this kernel has no keyring for this process: %v", err)
	}
	if !KeyringIsPrivate() {
		t.Error("a user namespace's keyring counts as shared")
	}
	t.Run("store", func(t *testing.T) { keyringStores(t, k) })
	t.Run("expiry", func(t *testing.T) { keyringForgets(t, k) })
	t.Run("permissions", func(t *testing.T) { keyringGuards(t, k) })
	t.Run("quota", func(t *testing.T) { keyringTypes(t, k) })
}

func keyringStores(t *testing.T, k *Keyring) {
	a, b := Key("a"), Key("b")
	later := time.Now().Add(time.Hour)
	for _, text := range []string{"one", strings.Repeat("two", 4000)} {
		if err := k.Put(a, []byte(text), later); err != nil {
			t.Fatal(err)
		}
		if got, err := k.Get(a); string(got) != text || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if _, err := k.Get(b); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := k.Put(b, []byte("b"), later); err != nil {
		t.Error(err)
	}
	keys, err := k.List()
	if slices.Sort(keys); err != nil || len(keys) != 2 || !slices.Contains(keys, a) || !slices.Contains(keys, b) {
		t.Error(keys, err)
	}
	for range 2 {
		if err := errors.Join(k.Delete(a), k.Delete(b)); err != nil {
			t.Error(err)
		}
	}
	if keys, err := k.List(); len(keys) != 0 || err != nil {
		t.Error(keys, err)
	}
}

func keyringForgets(t *testing.T, k *Keyring) {
	key := Key("short")
	if err := k.Put(key, []byte("x"), time.Now().Add(1500*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Get(key); err != nil {
		t.Error(err)
	}
	time.Sleep(2100 * time.Millisecond)
	if _, err := k.Get(key); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its time: %v", err)
	}
	if err := k.Put(key, []byte("new"), time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if got, err := k.Get(key); string(got) != "new" || err != nil {
		t.Errorf("stored over an expired one: %q, %v", got, err)
	}
	if err := k.Put(key, []byte("old"), time.Now().Add(-time.Hour)); err != nil {
		t.Error(err)
	}
}

// keyringGuards looks at the key as a process of the same user sees it that
// does not possess it, in a session of its own, as a service's.
func keyringGuards(t *testing.T, k *Keyring) {
	key := Key("guarded")
	if err := k.Put(key, []byte("x"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var id int
	var description string
	if err := k.do(func(ring int) (err error) {
		if id, err = search(ring, key); err == nil {
			description, err = unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
		}
		return err
	}); err != nil || !strings.Contains(description, ";3f000000;"+keyPrefix+key) {
		t.Fatalf("%s, %v", description, err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKeyring$")
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_SERIAL="+strconv.Itoa(id))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func stranger(t *testing.T, serial string) {
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	id, err := strconv.Atoi(serial)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := read(id); !errors.Is(err, unix.EACCES) {
		t.Errorf("read as %q, %v", text, err)
	}
	if _, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id); !errors.Is(err, unix.EACCES) {
		t.Errorf("described: %v", err)
	}
	if text, err := (&Keyring{}).Get(Key("guarded")); string(text) != "x" || err != nil {
		t.Errorf("a service of the same user finds %q, %v", text, err)
	}
}

// keyringTypes has an entry in the type that the quota does not count, and
// later in the other.
func keyringTypes(t *testing.T, k *Keyring) {
	key := Key("typed")
	err := k.do(func(ring int) error { return link(ring, "big_key", keyPrefix+key, []byte("big"), 3600) })
	if errors.Is(err, unix.ENODEV) {
		t.Log("this kernel has no keys of type big_key (CONFIG_BIG_KEYS): beyond the quota nothing is cached")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Get(key); string(got) != "big" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := k.Put(key, []byte("small"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := k.do(func(ring int) error {
		_, err := unix.KeyctlSearch(ring, "big_key", keyPrefix+key, 0)
		return err
	}); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("the other is still there: %v", err)
	}
	if got, err := k.Get(key); string(got) != "small" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
