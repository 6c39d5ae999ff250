package metadata

import (
	"sync/atomic"
	"time"
)

// clocks are a connection's deadlines. http.Server sets several for each
// request; timers for all of them cost more than what the request asks for. So
// they are only noted, and a glance at all connections once a second closes
// those that are past one.
type clocks struct {
	readBy, writeBy atomic.Int64 // Unix nanoseconds, 0 for none
	interrupted     atomic.Bool  // a deadline in the past was really set
}

// lateEvery is how long after its deadline a connection may be closed.
const lateEvery = time.Second

func (c *clocks) late(now time.Time) bool {
	for _, by := range []int64{c.readBy.Load(), c.writeBy.Load()} {
		if by != 0 && by < now.UnixNano() {
			return true
		}
	}
	return false
}

// SetReadDeadline notes t. One that is long past is how http.Server interrupts
// a read: that one is set.
func (c *conn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && t.Unix() < 1<<20 {
		c.interrupted.Store(true)
		return c.Conn.SetReadDeadline(t)
	}
	c.readBy.Store(unixNano(t))
	if c.interrupted.Swap(false) {
		return c.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// SetWriteDeadline notes t.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeBy.Store(unixNano(t))
	return nil
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// watch closes late connections until stop is closed.
func (cs *connections) watch(stop <-chan struct{}) {
	ticker := time.NewTicker(lateEvery)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			cs.closeLate(now)
		case <-stop:
			return
		}
	}
}
