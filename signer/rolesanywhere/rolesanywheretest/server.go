package rolesanywheretest

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Server is a Roles Anywhere endpoint. Its exported fields are read while it
// serves: set them before Start, or before the first request when the Server
// is used as an http.Handler alone. The methods may be called at any time and
// from any goroutine. The zero value is a server of us-east-1 in account
// 123456789012 that knows no trust anchor yet.
type Server struct {
	// URL is the base address, http://127.0.0.1:port, without a trailing
	// slash; Start and StartTLS set it.
	URL string

	// Listener is what Start serves on. Nil means a free loopback port. The
	// server owns it from Start on and closes it.
	Listener net.Listener

	// TLS is what StartTLS adds its certificate to. Nil means the defaults.
	TLS *tls.Config

	// Region is the endpoint's region, "us-east-1" if empty. A credential
	// scope, a trust anchor or a profile of any other region is refused.
	Region string

	// Account is where resources without an ARN of their own are created,
	// "123456789012" if empty.
	Account string

	// Partition is the endpoint's, "aws" if empty.
	Partition string

	// MaxClockSkew is how far x-amz-date may lie from Clock in either
	// direction; 0 means 5 minutes. It is the one bound on a replay: the
	// protocol has no nonce.
	MaxClockSkew time.Duration

	// Clock is the time by which dates and certificates are judged and
	// sessions expire. Nil means time.Now.
	Clock func() time.Time

	// Latency is waited before each answer. It ends early when the client
	// leaves or the server is closed.
	Latency time.Duration

	// MinSession is the least durationSeconds a request or a profile may ask
	// for, rounded up to whole seconds; 0 means the service's 900 s. Lower it
	// to see a session expire within a test.
	MinSession time.Duration

	// Throttle is the number of requests a second, by Clock, that are let
	// through; the rest are answered 429. 0 means no limit. An AWS account
	// has 10.
	Throttle int

	once        sync.Once
	done        chan struct{}
	closeOnce   sync.Once
	http        *httptest.Server
	certificate *x509.Certificate

	mu       sync.Mutex // guards what follows
	anchors  map[string]*trustAnchor
	profiles map[string]*Profile
	roles    map[string]*role
	sessions map[string]Session
	subjects map[string]string // leaf's raw subject → subject ARN
	bucket   bucket
	queue    []Fault
	fault    Fault
	records  []Request
	seen     int
}

// NewServer starts a server on a loopback port, plain HTTP. The caller closes
// it. Like httptest.NewServer it panics if no port can be had.
func NewServer() *Server {
	s := NewUnstartedServer()
	s.Start()
	return s
}

// NewTLSServer starts a server on a loopback port, HTTPS with a certificate
// of its own making for 127.0.0.1, ::1 and localhost, which Client trusts.
func NewTLSServer() *Server {
	s := NewUnstartedServer()
	s.StartTLS()
	return s
}

// NewUnstartedServer returns a server to be configured before Start or
// StartTLS.
func NewUnstartedServer() *Server { return &Server{} }

// Start begins to serve plain HTTP. It panics if the server already runs or
// no port can be had.
func (s *Server) Start() {
	s.prepare()
	s.http.Start()
	s.URL = s.http.URL
}

// StartTLS begins to serve HTTPS. It panics as Start does.
func (s *Server) StartTLS() {
	s.prepare()
	config := s.TLS.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if len(config.Certificates) == 0 {
		own, err := selfSigned()
		if err != nil {
			panic("rolesanywheretest: " + err.Error())
		}
		config.Certificates = []tls.Certificate{own}
	}
	s.http.TLS = config
	s.http.StartTLS()
	s.URL = s.http.URL
	s.certificate = s.http.Certificate()
}

func (s *Server) prepare() {
	if s.http != nil {
		panic("rolesanywheretest: the server was started before")
	}
	s.init()
	if s.Listener == nil {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic("rolesanywheretest: " + err.Error())
		}
		s.Listener = listener
	}
	s.http = &httptest.Server{
		Listener: s.Listener,
		Config: &http.Server{
			Handler:           s,
			MaxHeaderBytes:    maxHeader,
			ReadHeaderTimeout: 30 * time.Second,
			ErrorLog:          log.New(io.Discard, "", 0),
		},
	}
}

// init makes the zero value work.
func (s *Server) init() {
	s.once.Do(func() {
		s.done = make(chan struct{})
		s.anchors = make(map[string]*trustAnchor)
		s.profiles = make(map[string]*Profile)
		s.roles = make(map[string]*role)
		s.sessions = make(map[string]Session)
		s.subjects = make(map[string]string)
	})
}

// Close stops the server: waiting answers (Hang, Slow, Latency) are cut off,
// connections closed, and it returns when every handler has. Resources,
// sessions and the record stay readable. Closing twice does nothing.
func (s *Server) Close() {
	s.init()
	s.closeOnce.Do(func() {
		close(s.done)
		if s.http != nil {
			s.http.Close()
		}
	})
}

// Client returns an HTTP client that trusts the server's certificate. Close
// closes its idle connections. Nil before Start.
func (s *Server) Client() *http.Client {
	if s.http == nil {
		return nil
	}
	return s.http.Client()
}

// Certificate returns the certificate the server presents, nil without TLS.
func (s *Server) Certificate() *x509.Certificate { return s.certificate }

func (s *Server) now() time.Time {
	if s.Clock != nil {
		return s.Clock()
	}
	return time.Now()
}

func (s *Server) skew() time.Duration {
	if s.MaxClockSkew == 0 {
		return 5 * time.Minute
	}
	return s.MaxClockSkew
}

// shortest returns the least session length in seconds.
func (s *Server) shortest() int64 {
	if s.MinSession == 0 {
		return 900
	}
	return int64((s.MinSession + time.Second - 1) / time.Second)
}

func (s *Server) region() string    { return cmp.Or(s.Region, "us-east-1") }
func (s *Server) account() string   { return cmp.Or(s.Account, "123456789012") }
func (s *Server) partition() string { return cmp.Or(s.Partition, "aws") }
