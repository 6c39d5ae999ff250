package simulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// getRandom is TPM2_GetRandom of eight bytes.
var getRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8}

// socketPath is one in a directory that goes with the test. Not in t.TempDir:
// it has to be short.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
		_ = os.RemoveAll(dir)
	})
	return filepath.Join(dir, "tpm")
}

func startTPM(t *testing.T, patience time.Duration) *TPM {
	t.Helper()
	s, err := start(socketPath(t), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil { // not to hang
		t.Fatal(err)
	}
	return conn
}

func send(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// checkWorks runs a command as a client of its own.
func checkWorks(t *testing.T, s *TPM) {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	response := make([]byte, 20)
	if _, err = conn.Write(getRandom); err == nil {
		_, err = io.ReadFull(conn, response)
	}
	if err != nil || !bytes.HasPrefix(response, []byte{0x80, 0x01, 0, 0, 0, 20, 0, 0, 0, 0, 0, 8}) {
		t.Errorf("%x %v", response, err)
	}
}

func TestManyClients(t *testing.T) {
	s := startTPM(t, time.Minute)
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 20 {
				checkWorks(t, s)
			}
		})
	}
	// It is switched off and on among their commands, not within one.
	control := dial(t, s.path+controlSuffix)
	for range 20 {
		send(t, control, []byte{0, 0, 0, controlInit, 0, 0, 0, 0})
		if got, err := io.ReadAll(io.LimitReader(control, 4)); err != nil || !bytes.Equal(got, make([]byte, 4)) {
			t.Errorf("%x %v", got, err)
		}
	}
	clients.Wait()
}

// A client may die at any moment.
func TestClientsThatVanish(t *testing.T) {
	s := startTPM(t, time.Minute)
	makeKey := []byte{0x80, 0x02, 0, 0, 0, 65, 0, 0, 1, 0x31, 0x40, 0, 0, 1, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, // owner, no password
		0, 4, 0, 0, 0, 0, // no secret
		0, 24, 0, 0x23, 0, 0x0b, 0, 4, 4, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10, 0, 0, 0, 0, // signing with ECDSA on P-256
		0, 0, 0, 0, 0, 0} // no outside info, no PCR
	for name, sent := range map[string][]byte{
		"nothing": nil, "a byte": getRandom[:1], "half a header": getRandom[:5], "a header": getRandom[:10], "all but a byte": getRandom[:11],
		"a command": getRandom, "two": append(bytes.Clone(getRandom), getRandom...), "a slow one": makeKey,
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				conn := dial(t, s.path)
				send(t, conn, sent)
				if err := conn.Close(); err != nil {
					t.Fatal(err)
				}
			}
			checkWorks(t, s)
		})
	}
	// What they made is there, as it would be in a swtpm.
	d, err := tpm.Config{LockDir: t.TempDir()}.Open(t.Context(), s.TCTI())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := loaded(t, d); got != 3 {
		t.Errorf("%d objects are loaded", got)
	}
}

func loaded(t *testing.T, d *tpm.Device) (n int) {
	t.Helper()
	if err := d.Do(t.Context(), func(tp transport.TPM) error {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: 0x80000000, PropertyCount: 16}.Execute(tp)
		if err != nil {
			return err
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err == nil {
			n = len(list.Handle)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// One that stops in the middle of a command is sent away; one that is silent
// between two is not.
func TestClientThatStops(t *testing.T) {
	s := startTPM(t, 50*time.Millisecond)
	silent := dial(t, s.path)
	time.Sleep(100 * time.Millisecond)
	send(t, silent, getRandom)
	if _, err := io.ReadFull(silent, make([]byte, 20)); err != nil {
		t.Error(err)
	}
	_ = silent.Close()
	for _, path := range []string{s.path, s.path + controlSuffix} {
		stopped := dial(t, path)
		send(t, stopped, getRandom[:3])
		if n, err := stopped.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read %d bytes, %v", n, err)
		}
	}
	checkWorks(t, s)
}

func TestSizes(t *testing.T) {
	s := startTPM(t, time.Minute)
	for _, c := range []struct {
		size   uint32
		closed bool
	}{{0, true}, {9, true}, {4097, true}, {1 << 31, true}, {0xffffffff, true}, {4096, false}, {10, false}} {
		t.Run(fmt.Sprint(c.size), func(t *testing.T) {
			conn := dial(t, s.path)
			header := []byte{0x80, 0x01, byte(c.size >> 24), byte(c.size >> 16), byte(c.size >> 8), byte(c.size), 0, 0, 1, 0x7b}
			send(t, conn, header)
			if !c.closed {
				send(t, conn, make([]byte, c.size-headerSize))
			}
			response := make([]byte, 10)
			if _, err := io.ReadFull(conn, response); err != nil {
				t.Fatal(err)
			}
			// TPM_RC_COMMAND_SIZE, of the socket; TPM_RC_SIZE or TPM_RC_INSUFFICIENT, of the TPM.
			if want := []byte{0, 0, 1, 0x42}; bytes.Equal(response[6:], want) != c.closed || bytes.Equal(response[6:], make([]byte, 4)) {
				t.Errorf("response %x", response)
			}
			if c.closed {
				if n, err := conn.Read(response); n > 0 || err == nil {
					t.Errorf("not closed: %x", response[:n])
				}
				return
			}
			send(t, conn, getRandom)
			if _, err := io.ReadFull(conn, make([]byte, 20)); err != nil {
				t.Error(err)
			}
		})
	}
	checkWorks(t, s)
}

func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	path := socketPath(t)
	names := map[string]bool{}
	for range 3 {
		s, err := Start(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Start(path + "2"); err == nil || !strings.Contains(err.Error(), "runs one already") {
			t.Errorf("a second one: %v", err)
		}
		names[storageKey(t, s)] = true
		inside, waiting, control := dial(t, path), dial(t, path), dial(t, path+controlSuffix)
		send(t, inside, getRandom)
		if _, err := io.ReadFull(inside, make([]byte, 20)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, conn := range []net.Conn{inside, waiting, control} {
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("a client is still served")
			}
		}
		for _, p := range []string{path, path + controlSuffix} {
			if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	if len(names) != 3 {
		t.Error("two TPMs have the same storage key")
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines more", after-before)
	}
}

// storageKey returns the Name of the owner's storage key.
func storageKey(t *testing.T, s *TPM) (name string) {
	t.Helper()
	d, err := tpm.Config{LockDir: t.TempDir()}.Open(t.Context(), s.TCTI())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Do(t.Context(), func(tp transport.TPM) error {
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tp)
		if err == nil {
			name = string(rsp.Name.Buffer)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPaths(t *testing.T) {
	for path, want := range map[string]string{
		"/tmp/" + strings.Repeat("x", 94):  "at most 98 bytes",
		"/tmp/" + strings.Repeat("x", 200): "at most 98 bytes",
		"/tmp/a,b":                         "comma",
		"/nonexistent/tpm":                 "no such file",
	} {
		s, err := Start(path)
		if err == nil {
			t.Errorf("%s: works", path)
			_ = s.Close()
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		if want != "no such file" && !strings.Contains(signer.Hint(err), "TMPDIR") {
			t.Errorf("%s: hint %q", path, signer.Hint(err))
		}
	}
	s, err := Start(socketPath(t)) // the failures left nothing
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// tpm2-tools and swtpm's own tool, by the control channel.
func TestTools(t *testing.T) {
	s := startTPM(t, time.Minute)
	run := func(args ...string) string {
		t.Helper()
		tpmtest.Tool(t, args[0], map[bool]string{true: "tpm2-tools libtss2-tcti-swtpm0", false: "swtpm-tools"}[strings.HasPrefix(args[0], "tpm2_")])
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI="+s.TCTI())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
		return string(out)
	}
	run("tpm2_pcrextend", "16:sha256="+strings.Repeat("ab", 32))
	before := run("tpm2_pcrread", "sha256:16")
	if strings.Contains(before, strings.Repeat("0", 64)) {
		t.Errorf("not extended: %s", before)
	}
	run("swtpm_ioctl", "--unix", s.path+controlSuffix, "-i")
	if after := run("tpm2_pcrread", "sha256:16"); !strings.Contains(after, strings.Repeat("0", 64)) {
		t.Errorf("not switched off and on: %s", after)
	}
}

func TestControl(t *testing.T) {
	s := startTPM(t, time.Minute)
	for _, c := range []struct {
		name      string
		sent, got []byte
		closed    bool
	}{
		{"locality", []byte{0, 0, 0, 5, 0}, []byte{0, 0, 0, 0}, false},
		{"another locality", []byte{0, 0, 0, 5, 3}, []byte{0, 0, 0, 0x3d}, false},
		{"init", []byte{0, 0, 0, 2, 0, 0, 0, 0}, []byte{0, 0, 0, 0}, false},
		{"unknown", []byte{0, 0, 0, 1}, []byte{0, 0, 0, 0x0a}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, s.path+controlSuffix)
			for range 2 {
				send(t, conn, c.sent)
				got := make([]byte, len(c.got))
				if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, c.got) {
					t.Fatalf("%x %v", got, err)
				}
				if c.closed {
					if _, err := conn.Read(got); err == nil {
						t.Error("not closed")
					}
					return
				}
			}
		})
	}
	checkWorks(t, s)
}
