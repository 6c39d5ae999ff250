//go:build unix

package tpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"

	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// left leaves an object and a session in the TPM, as a process does that is
// killed.
func left(t *testing.T, spec, locks string) {
	t.Helper()
	d, err := Config{LockDir: locks}.Open(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Do(context.Background(), func(tp transport.TPM) error {
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(eccStorage())}.Execute(tp)
		if err != nil {
			return err
		}
		d.live.keep(rsp.ObjectHandle, true)
		s, _, err := tpm2.PolicySession(tp, tpm2.TPMAlgSHA256, 16)
		if err != nil {
			return err
		}
		d.live.keep(s.Handle(), true)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.turn <- struct{}{} // the idle timer does nothing any more
	if err := errors.Join(d.wire.close(), d.lock.close()); err != nil {
		t.Fatal(err)
	}
}

// What a process left behind could not be cleared up, for the TPM did not
// answer. The next use does it, and nobody uses the TPM without the lock.
func TestClearUpLater(t *testing.T) {
	s := tpmtest.Start(t)
	locks := t.TempDir()
	left(t, s.TCTI(), locks)
	d, err := Config{LockDir: locks}.Open(context.Background(), s.TCTI())
	if err != nil {
		t.Fatal(err)
	}
	dial := d.dial
	nothing := func(transport.TPM) error { return nil }
	for name, broken := range map[string]func(context.Context) (wire, error){
		"unreachable": func(context.Context) (wire, error) { return nil, errors.New("unreachable") },
		"breaks": func(ctx context.Context) (wire, error) {
			w, err := dial(ctx)
			return &shortWire{w, 2}, err // flushes the object and no more
		},
	} {
		d.dial = broken
		if err := d.Do(context.Background(), nothing); err == nil {
			t.Errorf("%s: nothing was to be cleared up", name)
		}
		other := newLock(locks, d.place)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if j, err := other.acquire(ctx); err != nil || len(j.loaded) == 0 {
			t.Errorf("%s: the lock after that: %v, %v", name, j, err)
		}
		cancel()
		_ = other.close()
	}
	d.dial = dial
	if err := d.Do(context.Background(), nothing); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.CheckEmpty()
}

// A shortWire breaks after some commands.
type shortWire struct {
	wire
	left int
}

func (w *shortWire) exchange(ctx context.Context, command []byte) ([]byte, error) {
	if w.left--; w.left < 0 {
		return nil, errBroken
	}
	return w.wire.exchange(ctx, command)
}

// A journal from before a reset says nothing of the objects that have the
// handles now.
func TestClearUpIsCareful(t *testing.T) {
	s := tpmtest.Start(t)
	s.Run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", "p.ctx")
	h := s.Handles()
	locks := t.TempDir()
	d, err := Config{LockDir: locks}.Open(context.Background(), s.TCTI())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"object 80000000", fmt.Sprintf("object 80000000 000b%064x", 1), "making object", fmt.Sprintf("making object 000b%064x", 1)} {
		if err := os.WriteFile(filepath.Join(locks, d.lock.base+".lock"), []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Do(context.Background(), func(transport.TPM) error { return nil }); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		_ = d.Close()
		if now := s.Handles(); now != h {
			t.Fatalf("%s: another program's object was flushed", line)
		}
		if d, err = (Config{LockDir: locks}).Open(context.Background(), s.TCTI()); err != nil {
			t.Fatal(err)
		}
	}
	_ = d.Close()
}

// Who waits is seen, even if the holder looked just when the waiter came.
func TestWaiterIsSeen(t *testing.T) {
	dir := t.TempDir()
	p := place{id: "test"}
	holder, waiter := newLock(dir, p), newLock(dir, p)
	defer holder.close()
	defer waiter.close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := holder.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	if err := flock(holder.waiting, unix.LOCK_EX); err != nil { // as contended does
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := waiter.acquire(ctx)
		got <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := flock(holder.waiting, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); !holder.contended(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the waiter is not seen")
		}
	}
	if err := holder.release(false); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A lock file may be one of these: a trap in a directory that all can write to.
func TestLockFileTraps(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink(victim, path) },
		"hard link":     func(path string) error { return os.Link(victim, path) },
		"pipe":          func(path string) error { return unix.Mkfifo(path, 0o666) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o777) },
	} {
		l := newLock(t.TempDir(), place{id: "test"})
		if err := set(filepath.Join(l.dir, l.base+".lock")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.acquire(context.Background()); err == nil {
			t.Errorf("%s: taken", name)
			_ = l.release(false)
		}
		_ = l.close()
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
}
