package simulator

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A door is a socket that lets in one client at a time; the others wait in its
// queue.
type door struct {
	listener net.Listener
	serve    func(net.Conn) // returns when the client hangs up
	done     chan struct{}  // closed when nobody is served any more

	mu     sync.Mutex
	inside net.Conn // nil if nobody is
	closed bool
}

func open(path string, serve func(net.Conn)) (*door, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	d := &door{listener: listener, serve: serve, done: make(chan struct{})}
	go d.run()
	return d, nil
}

func (d *door) run() {
	defer close(d.done)
	for {
		conn, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is free, for one
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if d.enter(conn) {
			d.serve(conn)
		}
		d.enter(nil)
		_ = conn.Close()
	}
}

// enter notes who is inside, and reports whether the door is open.
func (d *door) enter(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside = conn
	return !d.closed
}

// close sends everybody away and waits until they are gone.
func (d *door) close() error {
	d.mu.Lock()
	d.closed = true
	err := d.listener.Close() // removes the socket
	if d.inside != nil {
		_ = d.inside.Close()
	}
	d.mu.Unlock()
	<-d.done
	return err
}
