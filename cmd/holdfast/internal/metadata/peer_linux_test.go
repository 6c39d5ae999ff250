package metadata

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is a user other than root.
const nobody = 65534

// TestAskAs is no test of its own: it is what TestOtherUser runs as another
// user.
func TestAskAs(t *testing.T) {
	address := os.Getenv("HOLDFAST_TEST_ASK")
	if address == "" {
		return
	}
	resp, err := http.Get("http://" + address + "/role/edge")
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	t.Logf("answered %d %s", resp.StatusCode, text)
}

// askAs asks as another user, by a copy of this program that he can run.
func askAs(t *testing.T, uid uint32, address string) string {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	text, err := os.ReadFile(self)
	check(t, err)
	dir, err := os.MkdirTemp("", "ask-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755))
	program := filepath.Join(dir, "ask")
	check(t, os.WriteFile(program, text, 0o755))
	cmd := exec.Command(program, "-test.run=^TestAskAs$", "-test.v")
	cmd.Dir, cmd.Env = dir, []string{"HOLDFAST_TEST_ASK=" + address}
	if uid != uint32(os.Getuid()) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestOtherUser(t *testing.T) {
	own := uint32(os.Getuid())
	s := ready(t, RoleOptions{AllowUIDs: []uint32{own, 4242}})
	address, _ := s.start(t)
	if resp, body := get(t, "tcp", address, "/role/edge"); resp.StatusCode != 200 {
		t.Errorf("the owner is refused: %d %s", resp.StatusCode, body)
	}
	refused := ready(t, RoleOptions{AllowUIDs: []uint32{own + 1}})
	other, _ := refused.start(t)
	if own == 0 {
		// Only root can be two users at once.
		if out := askAs(t, nobody, address); !strings.Contains(out, "answered 403") || strings.Contains(out, "static/secret") {
			t.Errorf("another user got\n%s", out)
		}
		if !strings.Contains(s.log.String(), `"uid":65534`) {
			t.Errorf("the log does not say who was refused: %s", s.log)
		}
		named := ready(t, RoleOptions{AllowUIDs: []uint32{nobody}})
		third, _ := named.start(t)
		if out := askAs(t, nobody, third); !strings.Contains(out, "answered 200") {
			t.Errorf("the user who is named got\n%s", out)
		}
	}
	for target, code := range map[string]int{"/role/edge": 403, pathCredentials: 403, "/healthz": 200} {
		if resp, body := get(t, "tcp", other, target); resp.StatusCode != code || strings.Contains(body, "static/secret") {
			t.Errorf("%s: %d, want %d: %s", target, resp.StatusCode, code, body)
		}
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen("unix:"+path, 0, 0o666)
	check(t, err)
	s.Serve(l)
	if resp, _ := get(t, "unix", path, "/role/edge"); resp.StatusCode != 200 {
		t.Errorf("unix socket: %d", resp.StatusCode)
	}
	ours, err := Listen("unix:"+path+"2", 0, 0o666)
	check(t, err)
	refused.Serve(ours)
	if resp, _ := get(t, "unix", path+"2", "/role/edge"); resp.StatusCode != 403 {
		t.Errorf("unix socket of another: %d", resp.StatusCode)
	}
}

func TestOwnersOfSockets(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		check(t, err)
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		check(t, err)
		defer client.Close()
		server, err := l.Accept()
		check(t, err)
		defer server.Close()
		from, to := addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())
		for name, owner := range map[string]func() (uint32, error){
			"sock_diag": func() (uint32, error) { return diagOwner(from, to) },
			"proc":      func() (uint32, error) { return procOwner(from, to) },
		} {
			if uid, err := owner(); err != nil || uid != uint32(os.Getuid()) {
				t.Errorf("%s, %s: uid %d, %v", name, address, uid, err)
			}
		}
		// A socket that its process has closed is nobody's, whatever the kernel
		// says: it would say root.
		client.Close()
		for until := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			_, diagErr := diagOwner(from, to)
			_, procErr := procOwner(from, to)
			if errors.Is(diagErr, errNoOwner) && errors.Is(procErr, errNoOwner) {
				break
			}
			if time.Now().After(until) {
				t.Fatalf("a closed socket has an owner: %v, %v", diagErr, procErr)
			}
		}
	}
}

func TestUnixPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen("unix:"+path, 0, 0o600)
	check(t, err)
	s := newStation(t, RoleOptions{Fetch: static})
	s.run(t, l)
	get(t, "unix", path, "/role/edge")
	if log := s.log.String(); !strings.Contains(log, `"pid":`+strconv.Itoa(os.Getpid())) || !strings.Contains(log, `"uid":`+strconv.Itoa(os.Getuid())) {
		t.Errorf("%s", log)
	}
}

func TestHopLimit(t *testing.T) {
	for address, option := range map[string][2]int{"127.0.0.1:0": {syscall.IPPROTO_IP, syscall.IP_TTL}, "[::1]:0": {syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS}} {
		l, err := Listen(address, 3, 0)
		check(t, err)
		l.server = NewServer(Options{})
		defer l.Close()
		client, err := net.Dial("tcp", l.Name())
		check(t, err)
		defer client.Close()
		accepted, err := l.Accept()
		check(t, err)
		defer accepted.Close()
		raw, err := accepted.(*conn).Conn.(*net.TCPConn).SyscallConn()
		check(t, err)
		var ttl int
		check(t, raw.Control(func(fd uintptr) { ttl, err = syscall.GetsockoptInt(int(fd), option[0], option[1]) }))
		if err != nil || ttl != 3 {
			t.Errorf("%s: hop limit %d, %v", address, ttl, err)
		}
	}
}
