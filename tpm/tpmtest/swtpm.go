// Package tpmtest runs software TPMs and proxies before them, for tests.
package tpmtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A TPM is an swtpm process with a state of its own.
type TPM struct {
	t      testing.TB
	dir    string
	port   int    // 0 for a unix socket
	socket string // empty for dir's own
	state  string
	cmd    *exec.Cmd
}

// Start starts swtpm on a unix socket. It is killed when the test ends.
func Start(t testing.TB) *TPM { return start(t, 0, nil) }

// StartTCP starts swtpm on a TCP port.
func StartTCP(t testing.TB) *TPM { return start(t, freePort(t), nil) }

// StartFrom starts swtpm with the permanent state in a file.
func StartFrom(t testing.TB, path string) *TPM { return start(t, 0, readState(t, path)) }

// StartTCPFrom is StartFrom on a TCP port.
func StartTCPFrom(t testing.TB, path string) *TPM { return start(t, freePort(t), readState(t, path)) }

func readState(t testing.TB, path string) []byte {
	t.Helper()
	state, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// At is a TPM that something else started, such as a simulator, on a unix socket
// with a control socket beside it as swtpm has one. It cannot be killed.
func At(t testing.TB, socket string) *TPM {
	t.Helper()
	return &TPM{t: t, dir: t.TempDir(), socket: socket}
}

func start(t testing.TB, port int, state []byte) *TPM {
	t.Helper()
	s := prepare(t, port)
	if state != nil {
		if err := os.WriteFile(filepath.Join(s.state, "tpm2-00.permall"), state, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Launch()
	return s
}

// prepare makes a TPM's directories.
func prepare(t testing.TB, port int) *TPM {
	t.Helper()
	Tool(t, "swtpm", "swtpm")
	// Not t.TempDir: the path of a socket has to be short.
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		t.Fatal(err)
	}
	s := &TPM{t: t, dir: dir, port: port, state: filepath.Join(dir, "state")}
	if err := os.Mkdir(s.state, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	return s
}

// Tool fails the test if a program is missing.
func Tool(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is missing; install it: apt-get install %s", program, pkg)
	}
}

// freePort returns a port that is free, and the next one too.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		next, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		_ = l.Close()
		if err == nil {
			_ = next.Close()
			return port
		}
	}
	t.Fatal("no free ports")
	return 0
}

// Launch starts the process, again after [TPM.Kill].
func (s *TPM) Launch() {
	s.t.Helper()
	server, ctrl := "type=unixio,path="+s.Socket(), "type=unixio,path="+s.Socket()+".ctrl"
	if s.port != 0 {
		server = fmt.Sprintf("type=tcp,bindaddr=127.0.0.1,port=%d", s.port)
		ctrl = fmt.Sprintf("type=tcp,bindaddr=127.0.0.1,port=%d", s.port+1)
	}
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+s.state,
		"--server", server, "--ctrl", ctrl, "--flags", "not-need-init,startup-clear")
	var out bytes.Buffer
	cmd.Stderr = &out
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		network, addr := s.address()
		if c, err := net.Dial(network, addr); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("swtpm does not start: %s", &out)
		}
	}
}

func (s *TPM) address() (network, addr string) {
	if s.port != 0 {
		return "tcp", fmt.Sprintf("127.0.0.1:%d", s.port)
	}
	return "unix", s.Socket()
}

// Kill kills the process, as a crash would.
func (s *TPM) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
		if s.port == 0 {
			_ = os.Remove(s.Socket())
			_ = os.Remove(s.Socket() + ".ctrl")
		}
	}
}

// Reset powers the TPM off and on, through swtpm's control channel.
func (s *TPM) Reset() {
	s.t.Helper()
	Tool(s.t, "swtpm_ioctl", "swtpm-tools")
	arg := []string{"--unix", s.Socket() + ".ctrl"}
	if s.port != 0 {
		arg = []string{"--tcp", fmt.Sprintf("127.0.0.1:%d", s.port+1)}
	}
	if out, err := exec.Command("swtpm_ioctl", append(arg, "-i")...).CombinedOutput(); err != nil {
		s.t.Fatalf("swtpm_ioctl: %v\n%s", err, out)
	}
}

// Send runs one command, on a connection of its own, so that other programs get
// their turn: a TPM is a transport.TPM of go-tpm's. What the TPM asks to be
// retried is, as the first use of a key under dictionary attack protection.
func (s *TPM) Send(command []byte) ([]byte, error) {
	const retry = 0x922 // TPM_RC_RETRY
	rsp, err := s.send(command)
	for range 100 {
		if err != nil || binary.BigEndian.Uint32(rsp[6:]) != retry {
			break
		}
		rsp, err = s.send(command)
	}
	return rsp, err
}

func (s *TPM) send(command []byte) ([]byte, error) {
	network, addr := s.address()
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(command); err != nil {
		return nil, err
	}
	return packet(conn)
}

// Dir is a directory that goes with the TPM.
func (s *TPM) Dir() string { return s.dir }

// Socket is the path of the unix socket.
func (s *TPM) Socket() string { return cmp.Or(s.socket, filepath.Join(s.dir, "s")) }

// TCTI names the TPM as tpm2-tss does.
func (s *TPM) TCTI() string {
	if s.port != 0 {
		return fmt.Sprintf("swtpm:host=127.0.0.1,port=%d", s.port)
	}
	return "swtpm:path=" + s.Socket()
}

// Run runs a program that knows tpm2-tss on the TPM and returns its output. The
// test fails if the program does.
func (s *TPM) Run(args ...string) string {
	s.t.Helper()
	out, err := s.Try(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// Try is Run for a program that may fail.
func (s *TPM) Try(args ...string) (string, error) {
	s.t.Helper()
	pkg := "tpm2-tools"
	if args[0] == "openssl" {
		pkg = "openssl tpm2-openssl"
	}
	Tool(s.t, args[0], pkg)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI="+s.TCTI(), "TPM2OPENSSL_TCTI="+s.TCTI())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// Clear flushes what tpm2-tools leave in a TPM without a resource manager.
func (s *TPM) Clear() {
	s.t.Helper()
	s.Run("tpm2_flushcontext", "-t")
	s.Run("tpm2_flushcontext", "-l")
}

// Handles returns the transient objects and sessions in the TPM.
func (s *TPM) Handles() string {
	s.t.Helper()
	return strings.TrimSpace(s.Run("tpm2_getcap", "handles-transient") + s.Run("tpm2_getcap", "handles-loaded-session"))
}

// CheckEmpty fails the test if something is loaded.
func (s *TPM) CheckEmpty() {
	s.t.Helper()
	if h := s.Handles(); h != "" {
		s.t.Errorf("left in the TPM:\n%s", h)
	}
}
