package metadata

import (
	"net"
	"os"
	"strings"
	"testing"
)

func TestAuthorizationToken(t *testing.T) {
	path := t.TempDir() + "/token"
	const first, second = "first-authorization-token", "second-authorization-token"
	check(t, os.WriteFile(path, []byte(first), 0o600))
	file, err := OpenTokenFile(path)
	check(t, err)
	s := ready(t, RoleOptions{Token: file})
	code := func(header ...string) int { return s.ask("GET", "/role/edge", header...).Code }
	for _, c := range []struct {
		code   int
		header []string
	}{
		{200, []string{"Authorization", first}},
		{401, nil},
		{401, []string{"Authorization", ""}},
		{401, []string{"Authorization", "Bearer " + first}},
		{401, []string{"Authorization", first[1:]}},
		{401, []string{"Authorization", first, "Authorization", first}},
		{401, []string{"Authorization", second}},
	} {
		if got := code(c.header...); got != c.code {
			t.Errorf("%q: %d, want %d", c.header, got, c.code)
		}
	}
	check(t, os.WriteFile(path, []byte(second), 0o600))
	if code("Authorization", second) != 200 {
		t.Error("a new token does not count at once")
	}
	if code("Authorization", first) != 401 {
		t.Error("the old token still counts")
	}
	// IMDS cannot ask for a token: the role is not there.
	if w := s.ask("GET", pathCredentials+"/edge", headerToken, s.token()); w.Code != 404 {
		t.Errorf("IMDS: %d", w.Code)
	}
	check(t, os.WriteFile(path, nil, 0o600))
	if c := code("Authorization", ""); c != 503 {
		t.Errorf("an empty file: %d", c)
	}
	check(t, os.Remove(path))
	if c := code("Authorization", "wrong"); c != 503 {
		t.Errorf("no file: %d", c)
	}
	for _, text := range []string{"", "short", first + "\n", first + "\r\n", strings.Repeat("x", 4097)} {
		check(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := OpenTokenFile(path); err == nil || text != "" && strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if log := s.log.String(); strings.Contains(log, first) || strings.Contains(log, second) {
		t.Error("a token is in the log")
	}
}

func TestBeyondTheLoopback(t *testing.T) {
	inner, err := net.Listen("tcp", "0.0.0.0:0")
	check(t, err)
	l, err := NewListener("wide", inner)
	check(t, err)
	if l.Local() {
		t.Fatal("0.0.0.0 passes for the loopback")
	}
	path := t.TempDir() + "/token"
	check(t, os.WriteFile(path, []byte("authorization-token"), 0o600))
	file, err := OpenTokenFile(path)
	check(t, err)
	s := ready(t, RoleOptions{Name: "guarded", Token: file})
	open, err := NewRole(RoleOptions{Name: "open", Fetch: static})
	check(t, err)
	s.SetRoles([]*Role{s.role, open})
	s.run(t, l)
	_, port, _ := net.SplitHostPort(inner.Addr().String())
	address := "127.0.0.1:" + port
	for target, code := range map[string]int{"/role/open": 403, "/role/guarded": 401, pathCredentials: 403, "/metrics": 403, "/": 403} {
		if resp, body := get(t, "tcp", address, target); resp.StatusCode != code {
			t.Errorf("%s: %d, want %d: %s", target, resp.StatusCode, code, body)
		}
	}
	if resp, _ := get(t, "tcp", address, "/role/guarded", "Authorization", "authorization-token"); resp.StatusCode != 200 {
		t.Errorf("with the token: %d", resp.StatusCode)
	}
	if resp, body := get(t, "tcp", address, "/healthz"); resp.StatusCode != 503 || body != "unavailable\n" {
		t.Errorf("health: %d %q", resp.StatusCode, body)
	}
	if line, _ := raw(t, address, "PUT /latest/api/token HTTP/1.1\r\nHost: 127.0.0.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 9\r\n\r\n"); !strings.Contains(line, " 400 ") {
		t.Errorf("PUT: %s", line)
	}
}
