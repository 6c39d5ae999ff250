package metadata

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

// ListenerOptions say how a [Listener] serves.
type ListenerOptions struct {
	// IMDSRole is the role that IMDS shows; empty means the one role that the
	// caller may have, if there is exactly one.
	IMDSRole string
	// Hosts are names that a request's Host may bear, beside this machine's
	// addresses.
	Hosts []string
}

// A Listener is a socket on which a [Server] answers.
type Listener struct {
	net.Listener
	name   string
	local  bool // the loopback, or a unix socket
	unix   bool
	path   string // of a unix socket made here
	o      atomic.Pointer[ListenerOptions]
	closed atomic.Bool
	server *Server
}

// Listen opens a socket: "127.0.0.1:9911", "[::1]:9911", "localhost:9911",
// "unix:PATH". hopLimit is the IP TTL of what is sent, 0 to leave it alone;
// mode is a unix socket's.
func Listen(address string, hopLimit int, mode fs.FileMode) (*Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return listenUnix(address, path, mode)
	}
	ap, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	network := "tcp4"
	if ap.Addr().Is6() {
		network = "tcp6" // never both: [::] would be 0.0.0.0 too
	}
	inner, err := listenTCP(network, ap.String(), hopLimit)
	if err != nil {
		return nil, signer.WithHint(fmt.Errorf("listen on %s: %w", address, err), listenHint(err))
	}
	return NewListener(inner.Addr().String(), inner)
}

// ParseAddress reads the HOST:PORT of a TCP socket. The host is an IP address
// or "localhost".
func ParseAddress(address string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(strings.Replace(address, "localhost:", "127.0.0.1:", 1))
	if err != nil {
		return ap, signer.WithHint(fmt.Errorf("listen address %q is no IP address and port", address),
			"it looks like 127.0.0.1:9911, [::1]:9911 or unix:/run/holdfast.sock")
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// IsLocal reports whether only this machine can reach the address.
func IsLocal(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	ap, err := ParseAddress(address)
	return err == nil && ap.Addr().IsLoopback()
}

// NewListener takes a socket that somebody else opened, such as systemd.
func NewListener(name string, inner net.Listener) (*Listener, error) {
	l := &Listener{Listener: inner, name: name}
	l.o.Store(&ListenerOptions{})
	switch a := inner.Addr().(type) {
	case *net.TCPAddr:
		l.local = a.IP.IsLoopback()
	case *net.UnixAddr:
		l.local, l.unix = true, true
	default:
		return nil, fmt.Errorf("socket %s is neither TCP nor a unix stream", name)
	}
	return l, nil
}

// Name returns the address, as it was asked for but with the port it got.
func (l *Listener) Name() string { return l.name }

// Local reports whether only this machine can reach the listener.
func (l *Listener) Local() bool { return l.local }

// Configure sets or changes the options; requests from then on see them.
func (l *Listener) Configure(o ListenerOptions) { l.o.Store(&o) }

// Accept returns connections that know where they came in, and makes room for
// them.
func (l *Listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, listener: l}
	l.server.conns.add(c)
	return c, nil
}

// Close stops accepting. A unix socket's file goes too.
func (l *Listener) Close() error {
	if !l.closed.CompareAndSwap(false, true) {
		return nil
	}
	if l.path != "" {
		_ = os.Remove(l.path) // another daemon may have replaced it: then it is gone already
	}
	return l.Listener.Close()
}

// listenUnix makes the socket in a directory of its own and moves it into
// place: it is never there with a wrong mode, and a dead one is replaced.
func listenUnix(name, path string, mode fs.FileMode) (*Listener, error) {
	if path == "" || path[0] == '@' {
		return nil, fmt.Errorf("listen address %q names no path", name)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 && runtime.GOOS != "windows" {
			return nil, fmt.Errorf("listen on %s: there is a file that is no socket", path)
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, signer.WithHint(fmt.Errorf("listen on %s: another process answers there", path), "stop it, or choose another path")
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".holdfast-")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	fresh := filepath.Join(dir, "s")
	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	inner.SetUnlinkOnClose(false)
	if runtime.GOOS != "windows" {
		err = os.Chmod(fresh, mode)
	}
	if err = errors.Join(err, os.Rename(fresh, path)); err != nil {
		inner.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := NewListener(name, inner)
	if err == nil {
		l.path = path
	}
	return l, err
}

func listenHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "ports below 1024 need privileges: choose another, or let systemd open the socket"
	case isInUse(err):
		return "another process has the port: stop it, or choose another with --port or --listen"
	}
	return ""
}
