package metadata

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	pathToken       = "/latest/api/token"
	pathCredentials = "/latest/meta-data/iam/security-credentials"
	pathIMDS        = "/latest/"
	pathRole        = "/role/"
)

// An exchange is one request and where its answer goes.
type exchange struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	c     *conn
	roles *roleTable
	now   time.Time
}

// route finds what answers. Paths are taken to the letter: nothing is cleaned,
// so that nothing can be climbed.
func (s *Server) route(x exchange) {
	path := x.r.URL.Path
	if path == pathToken && x.r.Method == http.MethodPut {
		x.issueToken()
		return
	}
	p := protocolOf(path)
	if status, reason := x.guard(); status != 0 {
		x.refuse(p, status, reason)
		return
	}
	switch {
	case p == protocolToken:
		x.w.Header().Set("Allow", "PUT")
		x.refuse(p, http.StatusMethodNotAllowed, "a token is asked for with PUT")
	case x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		x.w.Header().Set("Allow", "GET, HEAD")
		x.refuse(p, http.StatusMethodNotAllowed, "method not allowed")
	case p == protocolECS:
		x.serveContainer(path[len(pathRole):])
	case path == "/healthz":
		x.serveHealth()
	case !x.c.listener.local:
		x.refuse(p, http.StatusForbidden, "beyond the loopback only the container credentials are served")
	case p == protocolIMDS:
		x.serveIMDS(path)
	case path == "/metrics":
		x.serveMetrics()
	default:
		x.refuse(p, http.StatusNotFound, "not found")
	}
}

type protocol int

const (
	protocolOther protocol = iota
	protocolToken
	protocolIMDS
	protocolECS
	protocols
)

func (p protocol) String() string {
	return [...]string{"other", "imds-token", "imds", "ecs"}[p]
}

func protocolOf(path string) protocol {
	switch {
	case path == pathToken:
		return protocolToken
	case strings.HasPrefix(path, pathIMDS):
		return protocolIMDS
	case strings.HasPrefix(path, pathRole):
		return protocolECS
	}
	return protocolOther
}

var (
	contentJSON = []string{"application/json"}
	contentText = []string{"text/plain"}
)

// send answers with a whole body. The slices are shared by all answers.
func (x exchange) send(p protocol, status int, contentType []string, d document) {
	h := x.w.Header()
	h["Content-Type"] = contentType
	if len(d.body) > 2000 { // http.Server would send more than 2048 bytes in chunks
		h["Content-Length"] = d.length
	}
	x.w.WriteHeader(status)
	_, _ = x.w.Write(d.body) // the client may be gone
	x.s.counts.answered(p, status)
}

func (x exchange) sendText(p protocol, status int, text string) {
	x.send(p, status, contentText, document{[]byte(text), []string{strconv.Itoa(len(text))}})
}

// refuse answers with an error, and logs it.
func (x exchange) refuse(p protocol, status int, reason string) {
	x.s.logRefusal(x, p, status, reason)
	if p == protocolECS {
		x.sendError(p, status, http.StatusText(status), reason)
		return
	}
	x.sendText(p, status, reason+"\n")
}

// unavailable answers that there are no credentials.
func (x exchange) unavailable(p protocol, err error) {
	if e, ok := err.(*unavailableError); ok && !e.retry.IsZero() {
		wait := max(1, int(time.Until(e.retry)/time.Second)+1)
		x.w.Header().Set("Retry-After", strconv.Itoa(wait))
	}
	x.s.logRefusal(x, p, http.StatusServiceUnavailable, err.Error())
	x.sendError(p, http.StatusServiceUnavailable, "CredentialsUnavailable", err.Error())
}

// sendError is the error of the container protocol, in JSON.
func (x exchange) sendError(p protocol, status int, code, message string) {
	doc, err := newDocument(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{code, message})
	if err != nil { // strings always marshal
		doc = document{length: []string{"0"}}
	}
	x.send(p, status, contentJSON, doc)
}

// handOut sends credentials and writes the audit.
func (x exchange) handOut(p protocol, role *Role, s *snapshot, contentType []string, d document) {
	if x.c.audited.Swap(s) != s {
		x.s.logHandOut(x, p, role, s)
	}
	role.handedOut.Add(1)
	x.send(p, http.StatusOK, contentType, d)
}
