// Package tpmtest runs software TPMs and proxies before them, for tests.
package tpmtest

import (
	"bytes"
	"context"
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
	t     testing.TB
	dir   string
	port  int // 0 for a unix socket
	state string
	cmd   *exec.Cmd
}

// Start starts swtpm on a unix socket. It is killed when the test ends.
func Start(t testing.TB) *TPM { return start(t, 0, nil) }

// StartTCP starts swtpm on a TCP port.
func StartTCP(t testing.TB) *TPM { return start(t, freePort(t), nil) }

// StartFrom starts swtpm with the permanent state in a file.
func StartFrom(t testing.TB, path string) *TPM {
	t.Helper()
	state, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, 0, state)
}

func start(t testing.TB, port int, state []byte) *TPM {
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
	if state != nil {
		if err := os.WriteFile(filepath.Join(s.state, "tpm2-00.permall"), state, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	s.Launch()
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
		network, addr := "unix", s.Socket()
		if s.port != 0 {
			network, addr = "tcp", fmt.Sprintf("127.0.0.1:%d", s.port)
		}
		if c, err := net.Dial(network, addr); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("swtpm does not start: %s", &out)
		}
	}
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

// Dir is a directory that goes with the TPM.
func (s *TPM) Dir() string { return s.dir }

// Socket is the path of the unix socket.
func (s *TPM) Socket() string { return filepath.Join(s.dir, "s") }

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
