package rolesanywhere_test

import (
	"context"
	"crypto"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

// A slowKey signs after something has happened, or fails.
type slowKey struct {
	crypto.Signer
	after <-chan struct{}
	err   error
}

func (k slowKey) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	<-k.after
	if k.err != nil {
		return nil, k.err
	}
	return crypto.SignMessage(k.Signer, random, message, opts)
}

// A front is what connections come to first.
type front struct {
	net.Listener
	mu       sync.Mutex
	accepted int
	first    chan struct{} // closed at the first connection
	ends     chan struct{} // gets one for each connection whose client closed it without a word
}

func (f *front) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted++; f.accepted == 1 {
		close(f.first)
	}
	return frontConn{c, f}, nil
}

type frontConn struct {
	net.Conn
	f *front
}

func (c frontConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		select {
		case c.f.ends <- struct{}{}:
		default:
		}
	}
	return n, err
}

func newFront(t *testing.T, h http.Handler) (*front, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{Listener: l, first: make(chan struct{}), ends: make(chan struct{}, 1)}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = f
	srv.Start()
	t.Cleanup(srv.Close)
	return f, srv.URL
}

func (l *lab) slowIdentity(t *testing.T, after <-chan struct{}, err error) *signer.Identity {
	t.Helper()
	key := newKey(t, "ec-p256")
	leaf, issueErr := l.ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "slow"}})
	if issueErr != nil {
		t.Fatal(issueErr)
	}
	id, newErr := signer.New(slowKey{key, after, err}, leaf, nil)
	if newErr != nil {
		t.Fatal(newErr)
	}
	return id
}

// The connection is made while the key signs, and the request goes over it.
func TestConnectsWhileSigning(t *testing.T) {
	l := newLab(t)
	f, url := newFront(t, l.Server)
	client, err := rolesanywhere.New(l.slowIdentity(t, f.first, nil), rolesanywhere.Options{Endpoint: url, Retryer: aws.NopRetryer{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateSession(context.Background(), l.in); err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted != 1 {
		t.Errorf("%d connections, want 1", f.accepted)
	}
}

// A connection that no request took is closed.
func TestConnectionAheadIsDropped(t *testing.T) {
	l := newLab(t)
	f, url := newFront(t, l.Server)
	broken := errors.New("broken")
	client, err := rolesanywhere.New(l.slowIdentity(t, f.first, broken), rolesanywhere.Options{Endpoint: url, Retryer: aws.NopRetryer{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateSession(context.Background(), l.in); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	<-f.ends
	if n := len(l.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// Where nobody listens the request's own error says so.
func TestConnectionAheadFails(t *testing.T) {
	l := newLab(t)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + nobody.Addr().String()
	nobody.Close()
	client, err := rolesanywhere.New(l.identity(t, "ec-p256"), rolesanywhere.Options{Endpoint: url, Retryer: aws.NopRetryer{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateSession(context.Background(), l.in); !errors.Is(err, rolesanywhere.ErrUnreachable) || signer.Hint(err) == "" {
		t.Errorf("got %v", err)
	}
}
