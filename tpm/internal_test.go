//go:build unix

package tpm

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"
)

func TestJournal(t *testing.T) {
	j := journal{
		loaded: []loaded{{handle: 0x80000001, name: []byte{0, 11, 1}}, {handle: 0x80000002}, {handle: 0x02000003}},
	}
	for _, p := range []pending{
		{}, {kind: pendingObject, name: []byte{1, 2}}, {kind: pendingTemplate, name: []byte{3}},
		{kind: pendingSession}, {kind: pendingSession, before: []tpm2.TPMHandle{0x02000000, 0x03000001}},
	} {
		j.pending = p
		data := j.marshal()
		got := parseJournal(append(data, "\n\n\n"...))
		if fmt.Sprint(got) != fmt.Sprint(j) {
			t.Errorf("%s: %v", data, got)
		}
		for i := range data { // cut off anywhere
			parseJournal(data[:i])
		}
	}
	for _, rubbish := range []string{"object 02000000", "session 80000000", "object 81000001", "session 40000001", "object", "making", "\x00\x01"} {
		if got := parseJournal([]byte(rubbish)); !got.empty() {
			t.Errorf("%q: %v", rubbish, got)
		}
	}
	if !(journal{}).empty() || len((journal{}).marshal()) != 0 {
		t.Error("an empty journal is not")
	}
}

func TestCFB(t *testing.T) {
	for n := range 70 {
		key, iv, data := make([]byte, 16), make([]byte, 16), make([]byte, n)
		for _, b := range [][]byte{key, iv, data} {
			if _, err := rand.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, n)
		//lint:ignore SA1019 it is what ours is compared with
		cipher.NewCFBEncrypter(block, iv).XORKeyStream(want, data)
		got := bytes.Clone(data)
		cfb(block, iv, got, true)
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: encrypted otherwise than the standard library", n)
		}
		if cfb(block, iv, got, false); !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: not decrypted", n)
		}
	}
}

// A device is stood in for by a socket pair: it polls and reads alike.
func TestFileWire(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	w := &fileWire{fd: fds[0]}
	defer w.close()
	peer := os.NewFile(uintptr(fds[1]), "peer")
	defer peer.Close()

	rsp := append([]byte{0x80, 1, 0, 0, 0, 200, 0, 0, 0, 0}, make([]byte, 190)...)
	go func() {
		buf := make([]byte, 12)
		_, _ = io.ReadFull(peer, buf)
		for _, part := range [][]byte{rsp[:3], rsp[3:100], rsp[100:]} {
			time.Sleep(5 * time.Millisecond)
			_, _ = peer.Write(part)
		}
	}()
	got, err := w.exchange(context.Background(), make([]byte, 12))
	if err != nil || !bytes.Equal(got, rsp) {
		t.Errorf("%x, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := w.exchange(ctx, make([]byte, 12)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Second {
		t.Errorf("a device that does not answer: %v after %v", err, time.Since(began))
	}
}

func TestBadResponses(t *testing.T) {
	for name, rsp := range map[string][]byte{
		"nothing":   {},
		"too short": {0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0},
		"too long":  {0x80, 1, 0xff, 0, 0, 0, 0, 0, 0, 0},
		"cut short": {0x80, 1, 0, 0, 0, 20, 0, 0, 0, 0, 1},
	} {
		if _, err := readResponse(bytes.NewReader(rsp), make([]byte, headerSize)); err == nil {
			t.Errorf("%s: taken for a response", name)
		}
	}
}

// While the queue of a socket is full, connecting fails with EAGAIN.
func TestFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	d, err := Config{LockDir: t.TempDir()}.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		for range 2 {
			c, _, err := unix.Accept(fd)
			if err != nil {
				return
			}
			defer unix.Close(c)
		}
		time.Sleep(50 * time.Millisecond)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.connect(ctx); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// slowTPM answers late, and counts what is loaded in it.
type slowTPM struct {
	wait   time.Duration
	loaded int
}

func (s *slowTPM) Send(command []byte) ([]byte, error) {
	time.Sleep(s.wait)
	rsp := []byte{0x80, 1, 0, 0, 0, 14, 0, 0, 0, 0, 0x80, 0, 0, 0}
	if commandCode(command) == tpm2.TPMCCFlushContext {
		s.loaded--
		rsp = rsp[:10]
		rsp[5] = 10
	} else {
		s.loaded++
	}
	return rsp, nil
}

// A command on a transport without deadlines goes on when it was given up. What
// it made is flushed.
func TestAbandonedCommand(t *testing.T) {
	slow := &slowTPM{wait: 50 * time.Millisecond}
	w := newGivenWire(slow)
	cmd := binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, 10}, uint32(tpm2.TPMCCContextLoad))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := w.exchange(ctx, cmd); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	w.free <- struct{}{} // when all is done
	if slow.loaded != 0 {
		t.Error("an object was left behind")
	}
}

func TestSpecs(t *testing.T) {
	for spec, want := range map[string]string{
		"swtpm":                              "tcp:127.0.0.1:2321",
		"swtpm:host=127.0.0.1,port=99":       "tcp:127.0.0.1:99",
		"swtpm:port=99":                      "tcp:127.0.0.1:99",
		"libtss2-tcti-swtpm.so.0:port=99":    "tcp:127.0.0.1:99",
		"tcp:[::1]:99":                       "tcp:127.0.0.1:99",
		"tcp:tpm.example:99":                 "tcp:tpm.example:99",
		"device:/dev/null":                   "device:/dev/null",
		"/dev/null":                          "device:/dev/null",
		"libtss2-tcti-device.so.0:/dev/null": "device:/dev/null",
	} {
		p, err := parseSpec(spec)
		if err != nil || p.id != want || !p.shared || p.managed {
			t.Errorf("%q: %+v, %v", spec, p, err)
		}
	}
	link := filepath.Join(t.TempDir(), "tpmrm0")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if p, err := parseSpec(link); err != nil || p.id != "device:/dev/null" {
		t.Errorf("a link to a device: %+v, %v", p, err)
	}
}
