package rolesanywhere

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// maxAhead is how old a connection may be that was made ahead: servers soon
// close those on which nothing is said.
const maxAhead = 3 * time.Second

// A connector makes the connection for the next request while the key signs it:
// either may take a while. Nothing is sent on it.
type connector struct {
	proxy func(*http.Request) (*url.URL, error)
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex
	ahead *connecting
}

type connecting struct {
	addr   string
	cancel context.CancelFunc
	done   chan struct{} // closed when the rest is set
	conn   net.Conn
	err    error
	at     time.Time
}

// newConnector has t make its connections through a connector.
func newConnector(t *http.Transport) *connector {
	c := &connector{proxy: t.Proxy, dial: t.DialContext}
	t.DialContext = c.dialContext
	return c
}

// begin begins to connect to what a request to target goes to.
func (c *connector) begin(ctx context.Context, target *url.URL) {
	to := target
	if p, err := c.proxy(&http.Request{URL: target}); err != nil {
		return // the request will say so
	} else if p != nil {
		to = p
	}
	port := to.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[to.Scheme]
	}
	if port == "" {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	next := &connecting{addr: net.JoinHostPort(to.Hostname(), port), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(next.done)
		next.conn, next.err = c.dial(ctx, "tcp", next.addr)
		next.at = time.Now()
	}()
	c.mu.Lock()
	unused := c.ahead
	c.ahead = next
	c.mu.Unlock()
	unused.drop()
}

// end drops a connection that no request took.
func (c *connector) end() {
	c.mu.Lock()
	unused := c.ahead
	c.ahead = nil
	c.mu.Unlock()
	unused.drop()
}

func (a *connecting) drop() {
	if a == nil {
		return
	}
	a.cancel()
	go func() {
		<-a.done
		if a.conn != nil {
			_ = a.conn.Close() // nothing was sent on it
		}
	}()
}

// dialContext takes the connection that was made ahead, if it is to addr, or
// makes one.
func (c *connector) dialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c.mu.Lock()
	a := c.ahead
	if a != nil && a.addr == addr {
		c.ahead = nil
	}
	c.mu.Unlock()
	if a == nil || a.addr != addr {
		return c.dial(ctx, network, addr)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		a.drop()
		return nil, ctx.Err()
	}
	switch {
	case a.err != nil:
		return nil, a.err
	case time.Since(a.at) > maxAhead:
		a.drop()
		return c.dial(ctx, network, addr)
	}
	return a.conn, nil
}
