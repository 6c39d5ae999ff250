package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

// A site is a made-up AWS and a directory with a key and its certificate.
type site struct {
	t   *testing.T
	dir string
	aws *rolesanywheretest.Server
	ca  *enroll.CA

	anchor, profile, role string
}

func newSite(t *testing.T, life time.Duration) *site {
	t.Helper()
	caKey, err := software.Generate("ec-p256")
	must(t, err)
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "CA"}})
	must(t, err)
	aws := rolesanywheretest.NewUnstartedServer()
	aws.MinSession = time.Second
	aws.Start()
	t.Cleanup(aws.Close)
	s := &site{t: t, dir: t.TempDir(), aws: aws, ca: ca}
	s.anchor, err = aws.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "a", Certificates: []*x509.Certificate{ca.Certificate}})
	must(t, err)
	s.role = aws.AddRole(rolesanywheretest.Role{Name: "edge"})
	s.profile = aws.AddProfile(rolesanywheretest.Profile{Name: "p", RoleARNs: []string{s.role}, Duration: life})
	key, cert := s.pair()
	s.write("device.key", key)
	s.write("device.crt", cert)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair makes a key and a certificate for it.
func (s *site) pair() (key, cert []byte) {
	s.t.Helper()
	k, err := software.Generate("ec-p256")
	must(s.t, err)
	leaf, err := s.ca.Issue(k.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "device"}})
	must(s.t, err)
	text, err := software.MarshalPrivateKey(k, signer.Secret{})
	must(s.t, err)
	return text, enroll.EncodePEM(leaf)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name string, text []byte) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path(name), text, 0o600))
}

func (s *site) flags() []string {
	return []string{"--certificate", s.path("device.crt"), "--private-key", s.path("device.key"), "--endpoint", s.aws.URL,
		"--trust-anchor-arn", s.anchor, "--profile-arn", s.profile, "--role-arn", s.role}
}

// config is the text of a file with these sections after the defaults.
func (s *site) config(sections string) []byte {
	return fmt.Appendf(nil, "[defaults]\ncertificate = %s\nprivate-key = %s\nendpoint = %s\ntrust-anchor-arn = %s\nprofile-arn = %s\nrole-arn = %s\n%s",
		s.path("device.crt"), s.path("device.key"), s.aws.URL, s.anchor, s.profile, s.role, sections)
}

// A serving is "holdfast serve" in this process.
type serving struct {
	t      *testing.T
	stdout *pipeBuffer
	stderr *pipeBuffer
	cancel func()
	code   chan int
}

func (s *site) serve(args ...string) *serving {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v := &serving{t: s.t, stdout: &pipeBuffer{}, stderr: &pipeBuffer{}, cancel: cancel, code: make(chan int, 1)}
	go func() { v.code <- run(ctx, append([]string{"serve"}, args...), v.stdout, v.stderr) }()
	s.t.Cleanup(func() { v.stop() })
	return v
}

// stop ends it and returns its exit code.
func (v *serving) stop() int {
	v.cancel()
	code := <-v.code
	v.code <- code
	return code
}

// wait waits until the log holds text so many times.
func (v *serving) wait(text string, times int) {
	v.t.Helper()
	for until := time.Now().Add(30 * time.Second); strings.Count(v.stderr.String(), text) < times; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			v.t.Fatalf("%q is not in the log %d times:\n%s", text, times, v.stderr)
		}
	}
}

// url is what was exported.
func (v *serving) url() string {
	v.t.Helper()
	v.wait(`"msg":"listening"`, 1)
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if line, ok := strings.CutPrefix(v.stdout.String(), "export AWS_EC2_METADATA_SERVICE_ENDPOINT="); ok {
			return strings.TrimSuffix(strings.TrimSpace(line), "/")
		}
		if time.Now().After(until) {
			v.t.Fatalf("stdout: %s", v.stdout)
		}
	}
}

func (v *serving) get(url string) (int, string) {
	v.t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(httpRequest(v.t, url))
	must(v.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(v.t, err)
	return resp.StatusCode, string(text)
}

func httpRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	must(t, err)
	return req
}

type pipeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *pipeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *pipeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// serials are the certificates that sessions were made with, in order, each
// once in a row.
func (s *site) serials() []string {
	var list []string
	for _, r := range s.aws.Requests() {
		if r.Serial == "" || r.Status != http.StatusCreated {
			s.t.Errorf("the endpoint refused a request: %s %s", r.Message, r.Reason)
		}
		if len(list) == 0 || list[len(list)-1] != r.Serial {
			list = append(list, r.Serial)
		}
	}
	return list
}

func TestServeOneRole(t *testing.T) {
	before := goroutines()
	s := newSite(t, time.Hour)
	v := s.serve(append(s.flags(), "--port", "0", "--hop-limit", "3")...)
	base := v.url()
	code, body := v.get(base + "/role/edge")
	var doc struct{ AccessKeyId, SecretAccessKey, Token string }
	must(t, json.Unmarshal([]byte(body), &doc))
	issued, ok := s.aws.Session(doc.AccessKeyId)
	if code != 200 || !ok || issued.SecretAccessKey != doc.SecretAccessKey {
		t.Errorf("%d %s", code, body)
	}
	if code := v.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, v.stderr)
	}
	for line := range strings.Lines(v.stderr.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	for _, secret := range []string{doc.SecretAccessKey, doc.Token} {
		if strings.Contains(v.stderr.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
	if n := s.aws.RequestCount(); n != 1 {
		t.Errorf("%d requests", n)
	}
	s.aws.Close()
	noMoreGoroutines(t, before)
}

// goroutines counts them, with the one that package os/signal starts once and
// never ends.
func goroutines() int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	signal.Stop(c)
	return runtime.NumGoroutine()
}

func noMoreGoroutines(t *testing.T, before int) {
	t.Helper()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for until := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// Over real sockets: 64 clients, an endpoint that takes its time, and short
// sessions. Nobody sees credentials that are mixed or over.
func TestServeManyClients(t *testing.T) {
	s := newSite(t, 6*time.Second)
	s.aws.Latency = 300 * time.Millisecond
	v := s.serve(append(s.flags(), "--port", "0")...)
	base := v.url()
	v.get(base + "/role/edge")
	var clients sync.WaitGroup
	end := time.Now().Add(8 * time.Second)
	for range 64 {
		clients.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for time.Now().Before(end) {
				resp, err := tr.RoundTrip(httpRequest(t, base+"/role/edge"))
				if err != nil {
					t.Error(err)
					return
				}
				var doc struct {
					AccessKeyId, SecretAccessKey, Token string
					Expiration                          time.Time
				}
				err = json.NewDecoder(resp.Body).Decode(&doc)
				resp.Body.Close()
				issued, ok := s.aws.Session(doc.AccessKeyId)
				if err != nil || resp.StatusCode != 200 || !ok || issued.SecretAccessKey != doc.SecretAccessKey || issued.SessionToken != doc.Token ||
					!issued.Expiration.Equal(doc.Expiration) || !time.Now().Before(doc.Expiration) {
					t.Errorf("%s %v %v", resp.Status, err, doc.Expiration)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	clients.Wait()
	_, metrics := v.get(base + "/metrics")
	v.stop()
	made := strings.Count(v.stderr.String(), `"msg":"session"`)
	if n := s.aws.RequestCount(); made < 3 || n != made && n != made+1 {
		t.Errorf("%d CreateSession, %d sessions", n, made)
	}
	if !strings.Contains(metrics, `holdfast_session_failures_total{role="edge"} 0`) {
		t.Error(metrics)
	}
}
