package metadata

import (
	"sync"
	"time"
)

// logHandOut says who got which session.
func (s *Server) logHandOut(x exchange, p protocol, role *Role, snap *snapshot) {
	args := append([]any{"role", role.o.Name, "protocol", p.String()}, x.asker()...)
	s.log.Info("credentials served", append(args, snap.audit()...)...)
}

// asker returns what the log says of who asked.
func (x exchange) asker() []any {
	args := []any{"listener", x.c.listener.name}
	if !x.c.listener.unix {
		args = append(args, "addr", x.r.RemoteAddr)
	}
	who := x.c.who()
	if who.UID >= 0 {
		args = append(args, "uid", who.UID)
	}
	if who.PID >= 0 {
		args = append(args, "pid", who.PID)
	}
	return args
}

// logRefusal says who was refused what, as often as the log can take.
func (s *Server) logRefusal(x exchange, p protocol, status int, reason string) {
	dropped, ok := s.refused.admit(time.Now())
	if !ok {
		return
	}
	path := x.r.URL.Path
	if len(path) > 100 {
		path = path[:100] + "…"
	}
	args := append([]any{"status", status, "reason", reason, "protocol", p.String(), "method", x.r.Method, "path", path}, x.asker()...)
	if dropped > 0 {
		args = append(args, "unloggedBefore", dropped)
	}
	s.log.Warn("refused", args...)
}

// A refusalLog lets 20 lines through at once, and one a second after that:
// whoever can be refused must not fill the disk.
type refusalLog struct {
	mu      sync.Mutex
	spent   float64
	last    time.Time
	dropped int
}

func (l *refusalLog) admit(now time.Time) (dropped int, ok bool) {
	const burst, perSecond = 20, 1
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spent = max(0, l.spent-now.Sub(l.last).Seconds()*perSecond)
	l.last = now
	if l.spent > burst-1 {
		l.dropped++
		return 0, false
	}
	l.spent++
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}
