package metadata

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// statuses are the answers there are; every other counts as the last.
var statuses = [...]int{200, 400, 401, 403, 404, 405, 413, 503, 500}

type counters [protocols][len(statuses)]atomic.Uint64

func (c *counters) answered(p protocol, status int) {
	for i, s := range statuses {
		if s == status || i == len(statuses)-1 {
			c[p][i].Add(1)
			return
		}
	}
}

// serveHealth answers 200 if every role has credentials to hand out. Why not
// is for this machine's ears only.
func (x exchange) serveHealth() {
	var reasons strings.Builder
	for _, r := range x.roles.list {
		if err := r.Err(); err != nil {
			fmt.Fprintln(&reasons, err)
		}
	}
	switch {
	case reasons.Len() == 0:
		x.sendText(protocolOther, http.StatusOK, "ok\n")
	case x.c.listener.local:
		x.sendText(protocolOther, http.StatusServiceUnavailable, reasons.String())
	default:
		x.sendText(protocolOther, http.StatusServiceUnavailable, "unavailable\n")
	}
}

func (x exchange) serveMetrics() {
	x.send(protocolOther, http.StatusOK, []string{"text/plain; version=0.0.4; charset=utf-8"}, func() document {
		text := x.s.exposition(x.roles)
		return document{[]byte(text), []string{strconv.Itoa(len(text))}}
	}())
}

// exposition writes the metrics in Prometheus's text format.
func (s *Server) exposition(roles *roleTable) string {
	var b strings.Builder
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP holdfast_%s %s\n# TYPE holdfast_%[1]s %[3]s\n", name, help, kind)
	}
	value := func(name, labels string, v any) { fmt.Fprintf(&b, "holdfast_%s%s %v\n", name, labels, v) }

	family("requests_total", "counter", "Requests answered, by protocol and HTTP status.")
	for p := range protocols {
		for i, status := range statuses {
			if n := s.counts[p][i].Load(); n > 0 {
				value("requests_total", fmt.Sprintf(`{protocol="%v",code="%d"}`, p, status), n)
			}
		}
	}
	perRole := func(name, kind, help string, f func(*Role) (any, bool)) {
		family(name, kind, help)
		for _, r := range roles.list {
			if v, ok := f(r); ok {
				value(name, `{role="`+r.o.Name+`"}`, v)
			}
		}
	}
	fromSnapshot := func(f func(*snapshot) time.Time) func(*Role) (any, bool) {
		return func(r *Role) (any, bool) {
			snap := r.snap.Load()
			if snap == nil || f(snap).IsZero() {
				return nil, false
			}
			return f(snap).Unix(), true
		}
	}
	perRole("credentials_served_total", "counter", "Times the role's credentials were handed out.", func(r *Role) (any, bool) { return r.handedOut.Load(), true })
	perRole("sessions_total", "counter", "Sessions made for the role.", func(r *Role) (any, bool) { return r.refreshed.Load(), true })
	perRole("session_failures_total", "counter", "Attempts to make a session that failed.", func(r *Role) (any, bool) { return r.failed.Load(), true })
	perRole("credentials_valid", "gauge", "1 if there are credentials to hand out.", func(r *Role) (any, bool) {
		if r.snap.Load().live(time.Now()) {
			return 1, true
		}
		return 0, true
	})
	perRole("session_timestamp_seconds", "gauge", "When the role's session was made.", fromSnapshot(func(s *snapshot) time.Time { return s.taken }))
	perRole("credentials_expiry_timestamp_seconds", "gauge", "When the role's credentials end.", fromSnapshot(func(s *snapshot) time.Time { return s.expires }))
	perRole("certificate_expiry_timestamp_seconds", "gauge", "When the certificate that the session was made with ends.", fromSnapshot(func(s *snapshot) time.Time { return s.provenance.CertificateExpiry }))

	family("connections", "gauge", "Open connections.")
	value("connections", "", s.conns.count())
	family("connections_evicted_total", "counter", "Connections closed to make room for others.")
	value("connections_evicted_total", "", s.conns.evicted.Load())
	family("goroutines", "gauge", "Goroutines of the process.")
	value("goroutines", "", runtime.NumGoroutine())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	family("heap_bytes", "gauge", "Bytes of heap in use.")
	value("heap_bytes", "", m.HeapInuse)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		family("open_descriptors", "gauge", "Open file descriptors.")
		value("open_descriptors", "", len(fds)-1) // without the one that reads
	}
	return b.String()
}
