package metadata

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A conn is an accepted connection.
type conn struct {
	net.Conn
	listener *Listener
	once     sync.Once
	peer     Peer

	busy    atomic.Bool  // a handler runs
	since   atomic.Int64 // Unix nanoseconds of the accept, or of the last request
	audited atomic.Pointer[snapshot]
	clocks

	// token is the last IMDS token found genuine; only the connection's own
	// goroutine looks.
	token     string
	tokenEnds time.Time
}

// who returns the process at the other end, as far as it is known.
func (c *conn) who() Peer {
	c.once.Do(func() {
		c.peer = unknownPeer
		if c.Conn != nil && c.listener.local {
			c.peer = peerOf(c.Conn)
		}
	})
	return c.peer
}

func (c *conn) touch(now time.Time) { c.since.Store(now.UnixNano()) }

// Close closes the connection and forgets it.
func (c *conn) Close() error {
	c.listener.server.conns.remove(c)
	return c.Conn.Close()
}

// connections bounds how many there are.
type connections struct {
	max int

	mu      sync.Mutex
	all     map[*conn]struct{}
	evicted atomic.Uint64
}

const (
	// youth is what a connection gets to bring its request, even in a flood.
	youth = 100 * time.Millisecond
	// pause is how long accepting rests meanwhile; the kernel queues.
	pause = 5 * time.Millisecond
)

// add takes a connection in. If that is one too many, the connection without a
// running request that has been silent longest is closed: an honest client
// sends its request at once, one that lingers does not.
func (cs *connections) add(c *conn) {
	for range youth / pause {
		if cs.tryAdd(c, time.Now().Add(-youth)) {
			return
		}
		time.Sleep(pause)
	}
	if !cs.tryAdd(c, time.Now()) {
		cs.evicted.Add(1)
		_ = c.Conn.Close() // every other is at work; whoever serves it notices
	}
}

// tryAdd closes for c a connection that has been silent since before, if one
// must go.
func (cs *connections) tryAdd(c *conn, before time.Time) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.all) >= cs.max {
		var victim *conn
		for other := range cs.all {
			if !other.busy.Load() && (victim == nil || other.since.Load() < victim.since.Load()) {
				victim = other
			}
		}
		if victim == nil || victim.since.Load() > before.UnixNano() {
			return false
		}
		delete(cs.all, victim)
		cs.evicted.Add(1)
		_ = victim.Conn.Close() // whoever serves it notices
	}
	c.touch(time.Now())
	cs.all[c] = struct{}{}
	return true
}

func (cs *connections) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.all, c)
}

func (cs *connections) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.all)
}

// closeLate closes what is past a deadline.
func (cs *connections) closeLate(now time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.all {
		if c.late(now) {
			_ = c.Conn.Close() // whoever serves it notices
		}
	}
}

// closeIdle closes what came in through l and waits for nothing.
func (cs *connections) closeIdle(l *Listener) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.all {
		if c.listener == l && !c.busy.Load() {
			_ = c.Conn.Close()
		}
	}
}
