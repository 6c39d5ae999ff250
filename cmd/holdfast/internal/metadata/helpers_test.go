package metadata

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

// An account is a Roles Anywhere endpoint and what a role's Fetch needs of it.
// No network lies between, so that it works in the time of a synctest bubble.
type account struct {
	*rolesanywheretest.Server
	client *rolesanywhere.Client
	in     rolesanywhere.SessionInput

	mu       sync.Mutex
	away     error // of the network
	attempts []time.Time
}

func newAccount(t *testing.T, life time.Duration) *account {
	t.Helper()
	a := &account{Server: rolesanywheretest.NewUnstartedServer()}
	a.MinSession = time.Second
	caKey, err := software.Generate("ec-p256")
	check(t, err)
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "CA"}})
	check(t, err)
	key, err := software.Generate("ec-p256")
	check(t, err)
	leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "device"}, Lifetime: 48 * time.Hour})
	check(t, err)
	id, err := signer.New(key, leaf, nil)
	check(t, err)
	a.client, err = rolesanywhere.New(id, rolesanywhere.Options{Endpoint: "http://rolesanywhere.test", Transport: a, Retryer: aws.NopRetryer{}})
	check(t, err)
	a.in.TrustAnchorARN, err = a.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "a", Certificates: []*x509.Certificate{ca.Certificate}})
	check(t, err)
	a.in.RoleARN = a.AddRole(rolesanywheretest.Role{Name: "edge", MaxSessionDuration: 12 * time.Hour})
	a.in.ProfileARN = a.AddProfile(rolesanywheretest.Profile{Name: "p", RoleARNs: []string{a.in.RoleARN}, Duration: life})
	a.in.Duration = max(life, rolesanywhere.MinDuration)
	return a
}

func (a *account) fetch(ctx context.Context) (*rolesanywhere.Session, error) {
	return a.client.CreateSession(ctx, a.in)
}

func (a *account) setAway(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = err
}

func (a *account) tried() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]time.Time(nil), a.attempts...)
}

// RoundTrip hands a request to the endpoint.
func (a *account) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	a.mu.Lock()
	a.attempts = append(a.attempts, time.Now())
	away := a.away
	a.mu.Unlock()
	if away != nil {
		return nil, away
	}
	defer func() {
		if p := recover(); p != nil { // the endpoint dropped the connection
			resp, err = nil, io.ErrUnexpectedEOF
			if req.Context().Err() != nil {
				err = context.Cause(req.Context())
			}
		}
	}()
	in := req.Clone(req.Context())
	in.RequestURI = ""
	w := httptest.NewRecorder()
	a.ServeHTTP(w, in)
	return w.Result(), nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// document is what both protocols' credentials have.
type credentials struct {
	Code, LastUpdated, Type             string
	AccessKeyId, SecretAccessKey, Token string
	Expiration                          time.Time
}

// checkIssued reports whether the credentials belong together and are alive.
func (a *account) checkIssued(t *testing.T, body []byte) (id string, ok bool) {
	var c credentials
	if err := json.Unmarshal(body, &c); err != nil {
		t.Errorf("%v: %s", err, body)
		return "", false
	}
	s, known := a.Session(c.AccessKeyId)
	switch {
	case !known || s.SecretAccessKey != c.SecretAccessKey || s.SessionToken != c.Token || !s.Expiration.Equal(c.Expiration):
		t.Errorf("credentials that were never issued together: %s", body)
	case !time.Now().Before(c.Expiration):
		t.Errorf("expired %v ago", time.Since(c.Expiration))
	default:
		return c.AccessKeyId, true
	}
	return "", false
}

// A station is a server with one role, asked without a network.
type station struct {
	*Server
	role *Role
	conn *conn
	log  *safeBuffer
}

func newStation(t *testing.T, o RoleOptions) *station {
	t.Helper()
	log := &safeBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	if o.Name == "" {
		o.Name = "edge"
	}
	o.Logger = logger
	role, err := NewRole(o)
	check(t, err)
	s := NewServer(Options{Logger: logger})
	s.SetRoles([]*Role{role})
	return &station{s, role, s.fakeConn(), log}
}

func (s *Server) fakeConn() *conn {
	l := &Listener{name: "test", local: true, server: s}
	l.o.Store(&ListenerOptions{})
	return &conn{listener: l}
}

// ask makes one request on a connection of its own.
func (s *station) ask(method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:9911"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	c := s.fakeConn()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), connKey{}, c)))
	return w
}

func (s *station) token() string {
	return s.ask("PUT", pathToken, headerTokenTTL, "21600").Body.String()
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// static is a Fetch of one session that never ends soon.
func static(ctx context.Context) (*rolesanywhere.Session, error) {
	return &rolesanywhere.Session{
		Credentials: aws.Credentials{AccessKeyID: "ASIASTATIC", SecretAccessKey: "static/secret", SessionToken: "static+token",
			CanExpire: true, Expires: time.Now().Add(time.Hour), AccountID: "123456789012"},
		AssumedRoleARN: "arn:aws:sts::123456789012:assumed-role/edge/abc", RequestID: "request-1",
	}, nil
}

func failing(context.Context) (*rolesanywhere.Session, error) { return nil, errors.New("AWS is away") }

// start runs the station's role and serves it on a loopback port.
func (s *station) start(t *testing.T, o ...ListenerOptions) (address string, l *Listener) {
	t.Helper()
	l, err := Listen("127.0.0.1:0", 64, 0)
	check(t, err)
	for _, o := range o {
		l.Configure(o)
	}
	s.run(t, l)
	return l.Name(), l
}

func (s *station) run(t *testing.T, l *Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { s.role.Run(ctx) })
	s.Serve(l)
	var stopped atomic.Bool
	t.Cleanup(func() {
		if stopped.Swap(true) {
			return
		}
		end, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		_ = s.Shutdown(end) // connections that an attack left open are cut
		cancel()
		done.Wait()
	})
}

// get asks over the network.
func get(t *testing.T, network, address, target string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://127.0.0.1"+target, nil)
	check(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	resp, err := tr.RoundTrip(req)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp, string(text)
}
