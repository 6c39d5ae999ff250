package rolesanywheretest

import (
	"net/http"
	"time"
)

const portalPage = `<!DOCTYPE html>
<html><head><title>Welcome to the guest network</title></head>
<body><form action="https://portal.example.com/login" method="post">
<p>Accept the terms of use to go on.</p><button>Accept</button>
</form></body></html>
`

// deliver sends the answer the way the fault has it.
func (s *Server) deliver(w http.ResponseWriter, r *http.Request, a answer, fault Fault) {
	name, d := fault.split()
	switch Fault(name) {
	case Status500:
		// types and texts as other rest-json services send them
		a = a.failing(http.StatusInternalServerError, "InternalServerException", "Internal server error")
	case Status503:
		a = a.failing(http.StatusServiceUnavailable, "ServiceUnavailableException", "Service is temporarily unavailable")
	case Status429:
		a = a.failing(http.StatusTooManyRequests, "ThrottlingException", msgRateExceeded)
	case Drop:
		panic(http.ErrAbortHandler) // net/http closes the connection
	case Hang:
		s.hang(r)
	case HTML:
		a = answer{http.StatusOK, map[string]string{"Content-Type": "text/html; charset=utf-8"}, []byte(portalPage)}
	case Empty:
		a.status, a.body = http.StatusCreated, nil
	case Redirect:
		a = answer{http.StatusFound, map[string]string{"Location": "https://portal.example.com/login"}, nil}
	case Truncated:
		a.sendHeader(w)
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case slow:
		s.trickle(w, r, a, d)
		return
	case skewedDate:
		if date, err := http.ParseTime(a.header["Date"]); err == nil {
			a.header["Date"] = date.Add(d).Format(http.TimeFormat)
		}
	}
	a.send(w)
}

// failing replaces the answer by an error of the service, with the same
// request ID and date.
func (a answer) failing(status int, kind, message string) answer {
	failed := (&Refusal{Status: status, Type: kind, Message: message}).answer()
	for _, name := range []string{"x-amzn-RequestId", "Date"} {
		failed.header[name] = a.header[name]
	}
	return failed
}

// hang waits for the client or the server to give up, and then closes the
// connection.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.done:
	}
	panic(http.ErrAbortHandler)
}

// trickle sends the header at once and the body in pieces over d.
func (s *Server) trickle(w http.ResponseWriter, r *http.Request, a answer, d time.Duration) {
	const pieces = 16
	flusher := http.NewResponseController(w)
	a.sendHeader(w)
	for i := range pieces {
		_ = flusher.Flush()
		if !s.wait(r, d/pieces) {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(a.body[i*len(a.body)/pieces : (i+1)*len(a.body)/pieces])
	}
}
