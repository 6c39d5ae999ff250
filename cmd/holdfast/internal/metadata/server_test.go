package metadata

import (
	"context"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAudit(t *testing.T) {
	s := newStation(t, RoleOptions{Fetch: static, Provenance: func() Provenance {
		return Provenance{CertificateSerial: "abc123", CertificateExpiry: time.Now().Add(time.Hour), Key: "/etc/edge.key"}
	}})
	address, _ := s.start(t)
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for range 3 { // one connection
		resp, err := client.Get("http://" + address + "/role/edge")
		check(t, err)
		var doc map[string]string
		check(t, json.NewDecoder(resp.Body).Decode(&doc))
		resp.Body.Close()
	}
	token := s.token()
	get(t, "tcp", address, pathCredentials+"/edge", headerToken, token)
	get(t, "tcp", address, "/role/edge", "Origin", "http://evil.example")

	var lines []map[string]any
	for line := range strings.Lines(s.log.String()) {
		var m map[string]any
		check(t, json.Unmarshal([]byte(line), &m))
		lines = append(lines, m)
	}
	messages := ""
	for _, m := range lines {
		messages += m["msg"].(string) + "\n"
	}
	if messages != "session\ncredentials served\ncredentials served\nrefused\n" {
		t.Fatalf("logged:\n%s", messages)
	}
	served := lines[1]
	for k, want := range map[string]any{"role": "edge", "protocol": "ecs", "certificateSerial": "abc123", "key": "/etc/edge.key", "requestId": "request-1",
		"sessionArn": "arn:aws:sts::123456789012:assumed-role/edge/abc", "accessKeyId": "ASIASTATIC", "listener": address} {
		if served[k] != want {
			t.Errorf("%s is %v, want %v", k, served[k], want)
		}
	}
	if _, err := time.Parse(time.RFC3339, served["expires"].(string)); err != nil || !strings.HasPrefix(served["addr"].(string), "127.0.0.1:") {
		t.Errorf("%v", served)
	}
	if KnowsPeers && served["uid"] != float64(os.Getuid()) {
		t.Errorf("uid is %v", served["uid"])
	}
	for _, secret := range []string{"static/secret", "static+token", token} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}

func TestHealthAndMetrics(t *testing.T) {
	s := newStation(t, RoleOptions{Fetch: failing})
	failures := 0
	s.role.attempt(t.Context(), &failures)
	if w := s.ask("GET", "/healthz"); w.Code != 503 || !strings.Contains(w.Body.String(), "AWS is away") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s = ready(t, RoleOptions{Provenance: func() Provenance { return Provenance{CertificateExpiry: time.Unix(2e9, 0)} }})
	if w := s.ask("GET", "/healthz"); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s.ask("GET", "/role/edge")
	s.ask("GET", "/role/nobody")
	w := s.ask("GET", "/metrics")
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%v", w.Header())
	}
	sample := regexp.MustCompile(`^holdfast_[a-z_]+(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? [0-9.e+]+$`)
	typed := map[string]bool{}
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(name, " ")
			if typed[name] || kind != "counter" && kind != "gauge" || kind == "counter" != strings.HasSuffix(name, "_total") {
				t.Errorf("bad type: %s", line)
			}
			typed[name] = true
			continue
		}
		name, _, _ := strings.Cut(strings.ReplaceAll(line, "{", " "), " ")
		if !strings.HasPrefix(line, "# HELP ") && (!sample.MatchString(line) || !typed[name]) {
			t.Errorf("bad line: %s", line)
		}
	}
	for _, want := range []string{
		`holdfast_requests_total{protocol="ecs",code="200"} 1`, `holdfast_requests_total{protocol="ecs",code="404"} 1`,
		`holdfast_sessions_total{role="edge"} 1`, `holdfast_session_failures_total{role="edge"} 0`, `holdfast_credentials_valid{role="edge"} 1`,
		`holdfast_certificate_expiry_timestamp_seconds{role="edge"} 2000000000`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, w.Body)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen("unix:"+path, 0, 0o640)
	check(t, err) // a dead socket is replaced
	info, err := os.Stat(path)
	check(t, err)
	if info.Mode().Perm() != 0o640 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("mode %v", info.Mode())
	}
	s := newStation(t, RoleOptions{Fetch: static})
	s.run(t, l)
	resp, _ := get(t, "unix", path, "/role/edge", "Host", "anything")
	if resp.StatusCode != 200 || !strings.Contains(s.log.String(), `"listener":"unix:`+path) {
		t.Errorf("%d %s", resp.StatusCode, s.log)
	}
	if _, err := Listen("unix:"+path, 0, 0o600); err == nil || !strings.Contains(err.Error(), "another process answers there") {
		t.Errorf("a live socket was taken over: %v", err)
	}
	s.Remove(l)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket's file is left")
	}
	check(t, os.WriteFile(path, nil, 0o600))
	if _, err := Listen("unix:"+path, 0, 0o600); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file was replaced: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, local := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true, "unix:/x": true, "0.0.0.0:1": false, "[::]:1": false,
		"10.0.0.1:1": false, "[::ffff:127.0.0.1]:1": true, "example.com:1": false, "127.0.0.1": false, ":9911": false, "": false} {
		if IsLocal(address) != local {
			t.Errorf("%s", address)
		}
	}
	for _, address := range []string{"", ":9911", "9911", "example.com:80", "unix:", "unix:@abstract", "[::1]"} {
		if l, err := Listen(address, 0, 0o600); err == nil {
			l.Close()
			t.Errorf("%q is taken for an address", address)
		}
	}
	l, err := Listen("127.0.0.1:0", 64, 0)
	check(t, err)
	defer l.Close()
	if _, err := Listen(l.Name(), 64, 0); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
	six, err := Listen("[::1]:0", 64, 0)
	check(t, err)
	s := newStation(t, RoleOptions{Fetch: static})
	s.run(t, six)
	if resp, _ := get(t, "tcp", six.Name(), "/role/edge", "Host", six.Name()); resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestShutdownLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	release := make(chan struct{})
	s := newStation(t, RoleOptions{Fetch: static})
	l, err := Listen("127.0.0.1:0", 64, 0)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { <-release; s.role.Run(ctx) })
	s.Serve(l)
	answered := make(chan int, 1)
	go func() { // waits for the first session
		resp, err := http.Get("http://" + l.Name() + "/role/edge")
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	for s.conns.count() == 0 || !busy(s.Server) {
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	for !l.closed.Load() {
		time.Sleep(time.Millisecond)
	}
	close(release)
	if code := <-answered; code != 200 {
		t.Errorf("a running request was cut off: %d", code)
	}
	check(t, <-done)
	cancel()
	running.Wait()
	http.DefaultClient.CloseIdleConnections()
	for until := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
	if s.conns.count() != 0 {
		t.Errorf("%d connections are left", s.conns.count())
	}
}

func busy(s *Server) bool {
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	for c := range s.conns.all {
		if c.busy.Load() {
			return true
		}
	}
	return false
}
