package metadata

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultMaxConnections = 512

	// maxHeaderBytes is what http.Server is told; it allows 4 KiB more.
	maxHeaderBytes = 4 << 10

	// readTimeout is for the headers: there is no body to read after them.
	readTimeout  = 5 * time.Second
	writeTimeout = firstWait + 10*time.Second
	idleTimeout  = 2 * time.Minute
)

// Options configure a [Server].
type Options struct {
	// Logger receives the audit; nil means silence.
	Logger *slog.Logger
	// MaxConnections bounds the connections of all listeners together; zero
	// means 512.
	MaxConnections int
}

// A Server answers for roles on listeners. Its methods may be called from any
// goroutine.
type Server struct {
	log    *slog.Logger
	http   *http.Server
	tokens *tokens
	roles  atomic.Pointer[roleTable]
	conns  connections

	counts  counters
	refused refusalLog
	serving sync.WaitGroup
	watch   sync.Once
	stopped chan struct{} // closed by Shutdown
	stop    sync.Once
}

// A roleTable is the roles at one time. It never changes.
type roleTable struct {
	byName map[string]*Role
	list   []*Role
	// owned is set if any role is for some users only.
	owned bool
}

// NewServer returns a server without roles and listeners.
func NewServer(o Options) *Server {
	s := &Server{log: o.Logger, tokens: newTokens(), stopped: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.conns.max = o.MaxConnections
	if s.conns.max == 0 {
		s.conns.max = defaultMaxConnections
	}
	s.conns.all = map[*conn]struct{}{}
	s.SetRoles(nil)
	s.http = &http.Server{
		Handler:        s,
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       log.New(io.Discard, "", 0), // it would quote what strangers send
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	return s
}

type connKey struct{}

// SetRoles replaces the roles, all at once.
func (s *Server) SetRoles(roles []*Role) {
	t := &roleTable{byName: make(map[string]*Role, len(roles)), list: roles}
	for _, r := range roles {
		t.byName[r.o.Name] = r
		t.owned = t.owned || len(r.o.AllowUIDs) > 0
	}
	s.roles.Store(t)
}

// Serve answers on l, which the Server owns from then on, until it is removed
// or the server is shut down. It returns at once.
func (s *Server) Serve(l *Listener) {
	l.server = s
	s.watch.Do(func() { s.serving.Go(func() { s.conns.watch(s.stopped) }) })
	s.serving.Go(func() {
		_ = s.http.Serve(l) // it ends when l is closed
	})
}

// Remove closes l and the idle connections that came in through it.
func (s *Server) Remove(l *Listener) {
	_ = l.Close()
	s.conns.closeIdle(l)
}

// Shutdown stops accepting, lets running requests end, and closes what has not
// when ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	s.stop.Do(func() { close(s.stopped) })
	s.serving.Wait()
	return err
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		http.Error(w, "not a connection of this server", http.StatusInternalServerError)
		return
	}
	c.busy.Store(true)
	if c.listener.closed.Load() {
		w.Header()["Connection"] = []string{"close"}
	}
	now := time.Now()
	s.route(exchange{s, w, r, c, s.roles.Load(), now})
	c.touch(now)
	c.busy.Store(false)
}
