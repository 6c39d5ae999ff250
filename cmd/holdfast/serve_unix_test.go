//go:build unix

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServeReloads(t *testing.T) {
	before := goroutines()
	s := newSite(t, time.Hour)
	socket := s.path("socket")
	listen := "[listen 127.0.0.1:0]\n[listen unix:" + socket + "]\nmode = 0600\n"
	s.write("serve.conf", s.config("[role one]\n"+listen))
	v := s.serve("--config", s.path("serve.conf"))
	base := v.url()
	v.wait(`"msg":"session"`, 1)
	reload := func(text string, want string) {
		t.Helper()
		s.write("serve.conf", []byte(text))
		n := strings.Count(v.stderr.String(), want) + 1
		must(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
		v.wait(want, n)
	}
	expect := func(path string, want int) {
		t.Helper()
		if code, body := v.get(base + path); code != want {
			t.Errorf("%s: %d, want %d: %s", path, code, want, body)
		}
	}
	expect("/role/one", 200)
	expect("/role/two", 404)

	// What is bad changes nothing, and says where it is.
	const bad = "the new configuration cannot be used"
	for text, where := range map[string]string{
		"[role one": "serve.conf:1: ",
		string(s.config("[role one]\nrole-ran = x\n")):                            `serve.conf:9: unknown key \"role-ran\"`,
		string(s.config("[role one]\npkcs8-password = x\n")):                      "serve.conf:9: pkcs8-password cannot be set in a file",
		string(s.config("[role one]\nsession-duration = soon")):                   "serve.conf:9: session-duration: give whole seconds",
		string(s.config("[role one]\nsession-duration = 1")):                      "session duration 1s",
		string(s.config("[role one]\ncertificate = /nowhere")):                    "/nowhere",
		string(s.config("[role one]\n[listen 0.0.0.0:0]")):                        "serve.conf:9: 0.0.0.0:0 can be reached from beyond this machine, and no role on it has an authorization token",
		string(s.config("[role one]\n[listen x]")):                                "serve.conf:9: ",
		string(s.config("[role one]\n" + listen + "mode = 9")):                    "serve.conf:12: mode is there already, on line 11",
		string(s.config("[role one]\n[listen unix:" + socket + "]\nmode = 0666")): "cannot change while it serves",
		string(s.config("[role one]\n[listen 127.0.0.1:0]\nimds-role = two")):     "there is no [role two]",
		string(s.config("[role one]\nauthorization-token-file = /nowhere")):       "/nowhere",
		string(s.config("[role one]\nallow-uid = no-such-user")):                  "no-such-user",
		string(s.config("[role one]\npassphrase = sesame")):                       "serve.conf:9: passphrase: not a source",
		string(s.config("[role a/b]")):                                            "serve.conf:8: [role a/b]",
		string(s.config("")):                                                      "no [role NAME] in it",
	} {
		reload(text, bad)
		if !strings.Contains(v.stderr.String(), where) {
			t.Errorf("%q: the log does not say %q\n%s", text, where, v.stderr)
		}
		if strings.Contains(v.stderr.String(), "sesame") {
			t.Error("what may be a passphrase is in the log")
		}
		expect("/role/one", 200)
	}
	if n := s.aws.RequestCount(); n != 1 {
		t.Errorf("%d sessions, want 1: nothing changed", n)
	}

	const good = `"msg":"reloaded"`
	reload(string(s.config("[role one]\n[role two]\nsession-duration = 900\n"+listen)), good)
	expect("/role/one", 200)
	expect("/role/two", 200)
	if n := s.aws.RequestCount(); n != 2 {
		t.Errorf("%d sessions, want 2: one role is as it was", n)
	}
	reload(string(s.config("[role two]\nsession-duration = 900\n[listen 127.0.0.1:0]\n")), good)
	expect("/role/one", 404)
	expect("/role/two", 200)
	if _, err := os.Lstat(socket); err == nil {
		t.Error("a socket that is no longer named is left")
	}
	if code := v.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	s.aws.Close()
	noMoreGoroutines(t, before)
}

func TestServeUnderSystemd(t *testing.T) {
	s := newSite(t, time.Hour)
	path := s.path("notify")
	states, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer states.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "200000")
	s.write("serve.conf", s.config("[role one]\n"))
	next := func() string {
		t.Helper()
		must(t, states.SetReadDeadline(time.Now().Add(30*time.Second)))
		b := make([]byte, 4096)
		n, err := states.Read(b)
		must(t, err)
		return string(b[:n])
	}
	until := func(want string) string {
		t.Helper()
		for {
			if got := next(); strings.HasPrefix(got, want) {
				return got
			} else if got != "WATCHDOG=1" {
				t.Fatalf("%q, want %q", got, want)
			}
		}
	}
	v := s.serve("--config", s.path("serve.conf"), "--port", "0")
	if got := until("READY=1"); !strings.Contains(got, "STATUS=1 roles on 127.0.0.1:") {
		t.Errorf("%q", got)
	}
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
	must(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	if got := until("RELOADING=1"); runtime.GOOS == "linux" && !strings.Contains(got, "\nMONOTONIC_USEC=") {
		t.Errorf("%q", got)
	}
	until("READY=1")
	go v.stop()
	until("STOPPING=1")
}

// Sockets that systemd opened, and SIGTERM.
func TestServeActivated(t *testing.T) {
	s := newSite(t, time.Hour)
	first, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	second, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path("socket"), Net: "unix"})
	must(t, err)
	var files []*os.File
	for _, l := range []interface{ File() (*os.File, error) }{first, second} {
		f, err := l.File()
		must(t, err)
		files = append(files, f)
		defer f.Close()
	}
	s.write("serve.conf", s.config("[role one]\n[role two]\n[listen fd:tcp]\nimds-role = two\n"))
	cmd := exec.Command("sh", "-c", `export LISTEN_PID=$$; exec holdfast serve --config "$1"`, "sh", s.path("serve.conf"))
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=tcp:other", logDir+"="+t.TempDir())
	var stderr pipeBuffer
	cmd.Stderr = &stderr
	must(t, cmd.Start())
	v := &serving{t: t, stderr: &stderr}
	v.wait(`"msg":"listening"`, 2)
	base := "http://" + first.Addr().String()
	if code, body := v.get(base + "/role/one"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	req, err := http.NewRequest(http.MethodPut, base+"/latest/api/token", nil)
	must(t, err)
	req.Header.Set("X-aws-ec2-metadata-token-ttl-seconds", "60")
	token := send(t, req)
	req = httpRequest(t, base+"/latest/meta-data/iam/security-credentials/")
	req.Header.Set("X-aws-ec2-metadata-token", token)
	if got := send(t, req); got != "two" {
		t.Errorf("IMDS shows %q", got)
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
	if _, err := os.Lstat(s.path("socket")); err != nil {
		t.Error("systemd's socket was deleted")
	}
}

func send(t *testing.T, req *http.Request) string {
	t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprint(resp.StatusCode)
	}
	return string(text)
}
