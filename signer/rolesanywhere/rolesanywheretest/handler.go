package rolesanywheretest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	maxHeader = 128 << 10 // six ML-DSA-87 certificates in base64 fit
	maxBody   = 256 << 10
)

// answer is an HTTP response not sent yet.
type answer struct {
	status int
	header map[string]string
	body   []byte
}

// ServeHTTP answers one request: it verifies, records, and lets a fault spoil
// the answer if one is due. Waiting ends when the client leaves or the server
// is closed. To close a connection without an answer it panics with
// http.ErrAbortHandler, which net/http servers understand.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.init()
	fault := s.nextFault()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		panic(http.ErrAbortHandler) // the client left; there is no one to answer
	}
	now := s.now()
	record := Request{
		ID: newUUID(), Time: now, Method: r.Method, URL: r.RequestURI, Host: r.Host,
		Header: r.Header.Clone(), Body: body, RemoteAddr: r.RemoteAddr, Fault: fault,
	}
	if record.URL == "" { // called without a network in between
		record.URL = r.URL.RequestURI()
	}
	answer := s.judge(r, body, now, &record)
	answer.header["x-amzn-RequestId"] = record.ID
	answer.header["Date"] = now.UTC().Format(http.TimeFormat)
	s.record(record)

	if !s.wait(r, s.Latency) {
		panic(http.ErrAbortHandler)
	}
	s.deliver(w, r, answer, fault)
}

// judge decides what to answer and writes the verdict into the record.
func (s *Server) judge(r *http.Request, body []byte, now time.Time, record *Request) answer {
	session, refusal := s.createSession(r, body, now, record)
	if refusal != nil {
		record.Status, record.ErrorType = refusal.Status, refusal.Type
		record.Message, record.Reason = refusal.Message, refusal.Reason
		return refusal.answer()
	}
	record.Status, record.AccessKeyID = http.StatusCreated, session.AccessKeyID
	return jsonAnswer(http.StatusCreated, newResponse(session))
}

// createSession makes every check, in an order like the service's: the
// request, its signature, its parameters, the certificate, the profile, the
// role. AWS does not tell its order; what is known is which message wins
// where a user made one mistake.
func (s *Server) createSession(r *http.Request, body []byte, now time.Time, record *Request) (Session, *Refusal) {
	if refusal := s.checkOutside(r, body, now); refusal != nil {
		return Session{}, refusal
	}
	auth, refusal := authorizationOf(r)
	if refusal != nil {
		return Session{}, refusal
	}
	record.Algorithm, record.Serial = auth.algorithm, auth.serial
	leaf, pool, refusal := s.authenticate(r, body, auth, now)
	if refusal != nil {
		return Session{}, refusal
	}
	in, refusal := s.parseInput(r.URL.RawQuery, body)
	record.UnknownMembers = in.unknown
	if refusal != nil {
		return Session{}, refusal
	}
	if refusal := s.checkCertificate(in, leaf, pool, now); refusal != nil {
		return Session{}, refusal
	}
	return s.assumeRole(in, leaf, now)
}

// checkOutside looks at a request as a front end would, before anything is
// parsed.
func (s *Server) checkOutside(r *http.Request, body []byte, now time.Time) *Refusal {
	if !s.admit(now) {
		return &Refusal{http.StatusTooManyRequests, "ThrottlingException", msgRateExceeded, fmt.Sprintf("more than %d requests in a second", s.Throttle)}
	}
	size := 0
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + len(": \r\n")
		}
	}
	// none of these answers was observed
	const tooLarge = "RequestEntityTooLargeException"
	switch {
	case r.URL.EscapedPath() != "/sessions" || r.Method != http.MethodPost:
		return &Refusal{http.StatusNotFound, "UnknownOperationException", msgUnknownOperation, "the only operation is POST /sessions"}
	case size > maxHeader:
		return &Refusal{http.StatusRequestHeaderFieldsTooLarge, tooLarge, "Request headers are too large", fmt.Sprintf("%d bytes of headers", size)}
	case len(body) > maxBody:
		return &Refusal{http.StatusRequestEntityTooLarge, tooLarge, "Request body is too large", fmt.Sprintf("more than %d bytes", maxBody)}
	}
	return nil
}

// bucket counts the requests let through in one second of the clock.
type bucket struct {
	second int64
	count  int
}

func (s *Server) admit(now time.Time) bool {
	if s.Throttle == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := now.Unix(); second != s.bucket.second {
		s.bucket = bucket{second: second}
	}
	s.bucket.count++
	return s.bucket.count <= s.Throttle
}

// wait returns false if the client left or the server was closed before d
// had passed.
func (s *Server) wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

func (r *Refusal) answer() answer {
	a := jsonAnswer(r.Status, map[string]string{"message": r.Message})
	a.header["x-amzn-ErrorType"] = r.Type
	return a
}

func jsonAnswer(status int, value any) answer {
	body, err := json.Marshal(value)
	if err != nil { // strings and integers always marshal
		status, body = http.StatusInternalServerError, []byte("{}")
	}
	return answer{status, map[string]string{"Content-Type": "application/json"}, body}
}

// send writes the answer, with its true length.
func (a answer) send(w http.ResponseWriter) {
	a.sendHeader(w)
	_, _ = w.Write(a.body) // the client may be gone
}

func (a answer) sendHeader(w http.ResponseWriter) {
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
}
