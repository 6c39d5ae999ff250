package metadata

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// raw sends text as it is and returns the status line, or the error.
func raw(t *testing.T, address, text string) (string, error) {
	t.Helper()
	return rawBytes(t, address, []byte(text))
}

func rawBytes(t *testing.T, address string, text []byte) (string, error) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	check(t, err)
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	go c.Write(text) // the server may close before it has read all
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func TestHostsAndBrowsers(t *testing.T) {
	s := ready(t, RoleOptions{})
	address, l := s.start(t, ListenerOptions{Hosts: []string{"holdfast.internal"}})
	_, port, _ := net.SplitHostPort(address)
	for _, c := range []struct {
		code   int
		header []string
	}{
		{200, []string{"Host", address}},
		{200, []string{"Host", "127.0.0.1"}},
		{200, []string{"Host", "127.1.2.3:80"}},
		{200, []string{"Host", "localhost:" + port}},
		{200, []string{"Host", "LocalHost"}},
		{200, []string{"Host", "[::1]:" + port}},
		{200, []string{"Host", "[::ffff:127.0.0.1]"}},
		{200, []string{"Host", "169.254.169.254"}},
		{200, []string{"Host", "169.254.170.2"}},
		{200, []string{"Host", "[fd00:ec2::23]"}},
		{200, []string{"Host", "Holdfast.internal:" + port}},
		{403, []string{"Host", "evil.example:" + port}},
		{403, []string{"Host", "127.0.0.1.evil.example"}},
		{403, []string{"Host", "localhost.evil.example"}},
		{403, []string{"Host", "localhost."}},
		{403, []string{"Host", "0.0.0.0:" + port}},
		{403, []string{"Host", "10.0.0.1:" + port}},
		{403, []string{"Host", "0177.0.0.1"}},
		{403, []string{"Host", "2130706433"}},
		{403, []string{"Host", "127.0.0.1:80:80"}},
		{403, []string{"Host", "127.0.0.1:x"}},
		{403, []string{"Host", "[127.0.0.1]"}},
		{403, []string{"Origin", "http://127.0.0.1:" + port}},
		{403, []string{"Origin", "null"}},
		{403, []string{"Origin", ""}},
		{403, []string{"Sec-Fetch-Site", "cross-site"}},
		{403, []string{"X-Forwarded-For", "127.0.0.1"}},
		{403, []string{"x-forwarded-for", ""}},
		{403, []string{"Forwarded", "for=127.0.0.1"}},
	} {
		resp, body := get(t, "tcp", address, "/role/edge", c.header...)
		if resp.StatusCode != c.code || (c.code == 200) != strings.Contains(body, "static/secret") {
			t.Errorf("%q: %d, want %d: %s", c.header, resp.StatusCode, c.code, body)
		}
	}
	// Names that were allowed once are not any more.
	l.Configure(ListenerOptions{})
	if resp, _ := get(t, "tcp", address, "/role/edge", "Host", "holdfast.internal"); resp.StatusCode != 403 {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestRawRequests(t *testing.T) {
	s := ready(t, RoleOptions{})
	address, _ := s.start(t)
	for _, c := range []struct{ text, want string }{
		{"GET /role/edge HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"},
		{"GET http://localhost/role/edge HTTP/1.1\r\nHost: evil.example\r\n\r\n", "200"}, // the URL's host counts
		{"GET http://evil.example/role/edge HTTP/1.1\r\nHost: localhost\r\n\r\n", "403"},
		{"GET /role/edge HTTP/1.1\r\n\r\n", "400"},
		{"GET /role/edge HTTP/1.0\r\n\r\n", "403"},
		{"GET /role/edge HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400"},
		{"GET /role/../role/edge HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		{"GET /x/../role/edge HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		{"GET /role/%2e%2e/role/edge HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		{"GET //role/edge HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		{"GET /role//edge HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		{"GET /role/edge%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		{"GET /role/edge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", "413"},
		{"GET /role/edge HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "413"},
		{"PUT /latest/api/token HTTP/1.1\r\nHost: localhost\r\nX-aws-ec2-metadata-token-ttl-seconds: 9\r\nContent-Length: 0\r\n\r\n", "200"},
		{"PUT /latest/api/token HTTP/1.1\r\nHost: localhost\r\nX-aws-ec2-metadata-token-ttl-seconds: 9\r\nContent-Length: 99999999\r\n\r\n", "400"},
		{"PUT /latest/api/token HTTP/1.1\r\nHost: evil.example\r\nX-aws-ec2-metadata-token-ttl-seconds: 9\r\n\r\n", "400"},
		{"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
		{"rubbish\r\n\r\n", "400"},
	} {
		line, _ := raw(t, address, c.text)
		if !strings.HasPrefix(line, "HTTP/1.1 "+c.want) && !strings.HasPrefix(line, "HTTP/1.0 "+c.want) && (c.want != "" || strings.Contains(line, " 200")) {
			t.Errorf("%q: %s, want %s", c.text, line, c.want)
		}
	}
}

func TestTenMegabytesOfHeaders(t *testing.T) {
	s := ready(t, RoleOptions{})
	address, _ := s.start(t)
	var before, after runtime.MemStats
	huge := []byte("GET /role/edge HTTP/1.1\r\nHost: localhost\r\nX-Long: " + strings.Repeat("x", 10<<20) + "\r\n\r\n")
	many := []byte("GET /role/edge HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-Many: yes\r\n", 10<<20/13) + "\r\n")
	line := []byte("GET /" + strings.Repeat("x", 10<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
	runtime.GC()
	runtime.ReadMemStats(&before)
	for name, text := range map[string][]byte{"huge": huge, "many": many, "line": line} {
		got, err := rawBytes(t, address, text)
		if !strings.Contains(got, " 431 ") && err == nil { // or the connection was cut while we wrote
			t.Errorf("%s: %s", name, got)
		}
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
		t.Errorf("10 MB of headers made the server allocate %d bytes", took)
	}
	if resp, _ := get(t, "tcp", address, "/role/edge"); resp.StatusCode != 200 {
		t.Errorf("it no longer serves: %d", resp.StatusCode)
	}
}

func TestSlowLoris(t *testing.T) {
	s := ready(t, RoleOptions{})
	s.conns.max = 16
	address, _ := s.start(t)
	var slow []net.Conn
	defer func() {
		for _, c := range slow {
			c.Close()
		}
	}()
	for i := range 100 { // far more than there is room for
		c, err := net.Dial("tcp", address)
		check(t, err)
		slow = append(slow, c)
		_, _ = fmt.Fprintf(c, "GET /role/edge HTTP/1.1\r\nHost: localhost\r\nX-Slow: %d", i)
		if resp, _ := get(t, "tcp", address, "/role/edge"); resp.StatusCode != 200 {
			t.Fatalf("with %d slow connections it serves no longer: %d", i+1, resp.StatusCode)
		}
		if n := s.conns.count(); n > 16 {
			t.Fatalf("%d connections, want at most 16", n)
		}
	}
	if s.conns.evicted.Load() == 0 {
		t.Error("none made room")
	}
	// Those that are left are closed in time.
	last := slow[len(slow)-1]
	check(t, last.SetReadDeadline(time.Now().Add(readTimeout+20*time.Second)))
	_, err := io.ReadAll(last)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a request without an end is waited for")
	}
}

func TestIdleConnectionsMakeRoomOldestFirst(t *testing.T) {
	s := ready(t, RoleOptions{})
	s.conns.max = 2
	conns := make([]*conn, 4)
	for i := range conns {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		conns[i] = &conn{Conn: a, listener: s.fakeConn().listener}
	}
	conns[0].busy.Store(true)
	for i := range 2 {
		s.conns.add(conns[i])
		conns[i].since.Store(int64(i + 1)) // long ago
	}
	s.conns.add(conns[2]) // conns[0] is older, but busy
	if _, kept := s.conns.all[conns[0]]; !kept || len(s.conns.all) != 2 {
		t.Error("a running request was cut off")
	}
	conns[2].busy.Store(true)
	s.conns.add(conns[3]) // nobody can go but it
	if _, kept := s.conns.all[conns[3]]; kept || len(s.conns.all) != 2 {
		t.Error("the bound does not hold")
	}
}

func TestRefusalsDoNotFillTheLog(t *testing.T) {
	s := ready(t, RoleOptions{})
	for range 10_000 {
		s.ask("GET", "/role/edge", "Origin", "x")
	}
	if n := strings.Count(s.log.String(), `"refused"`); n < 20 || n > 100 {
		t.Errorf("%d lines for 10,000 refusals", n)
	}
}

func TestServesOnUnderAttack(t *testing.T) {
	s := ready(t, RoleOptions{})
	s.conns.max = 64
	address, _ := s.start(t)
	before := runtime.NumGoroutine()
	var attack sync.WaitGroup
	for i := range 8 {
		attack.Go(func() {
			for n := range 40 {
				switch c, err := net.Dial("tcp", address); {
				case err != nil:
				case (i+n)%2 == 0:
					_, _ = c.Write(bytes.Repeat([]byte("A"), 64<<10))
					c.Close()
				default:
					_, _ = io.WriteString(c, "PUT /latest/api/token HTTP/1.1\r\nHost: evil\r\n\r\n")
					c.Close()
				}
			}
		})
	}
	for range 50 {
		if resp, _ := get(t, "tcp", address, "/role/edge"); resp.StatusCode != 200 {
			t.Errorf("%d", resp.StatusCode)
		}
	}
	attack.Wait()
	for until := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+4; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
