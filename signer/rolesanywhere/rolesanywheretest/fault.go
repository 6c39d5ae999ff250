package rolesanywheretest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fault is something that befalls an answer. It is written as its name, with
// "=" and a duration for those that take one, so that it can come from a flag:
// "drop", "slow=3s". The empty Fault is none.
//
// The request is verified, recorded and, where it is good, given a session as
// ever: only the answer suffers.
type Fault string

// The faults without a parameter.
const (
	Status500 Fault = "500"       // InternalServerException
	Status503 Fault = "503"       // ServiceUnavailableException
	Status429 Fault = "429"       // ThrottlingException
	Drop      Fault = "drop"      // the connection is closed without an answer
	Hang      Fault = "hang"      // no answer until the client leaves or Close
	HTML      Fault = "html"      // a captive portal's page, status 200
	Empty     Fault = "empty"     // 201 without a body
	Truncated Fault = "truncated" // the connection is closed half way through the body
	Redirect  Fault = "redirect"  // 302 to a login page of another host
)

// The names of those with one.
const (
	slow       Fault = "slow"
	skewedDate Fault = "skewed-date"
)

// Slow trickles the body of the answer so that it takes d in all.
func Slow(d time.Duration) Fault { return slow + Fault("="+d.String()) }

// SkewedDate moves the answer's Date header by d, forward or backward.
func SkewedDate(d time.Duration) Fault { return skewedDate + Fault("="+d.String()) }

// ParseFault checks the text form of a fault.
func ParseFault(text string) (Fault, error) {
	if slices.Contains([]Fault{"", Status500, Status503, Status429, Drop, Hang, HTML, Empty, Truncated, Redirect}, Fault(text)) {
		return Fault(text), nil
	}
	name, value, _ := strings.Cut(text, "=")
	if f := Fault(name); f != slow && f != skewedDate {
		return "", fmt.Errorf("parse fault %q: no such fault", text)
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return "", fmt.Errorf("parse fault %q: %w", text, err)
	}
	if Fault(name) == slow && d < 0 {
		return "", fmt.Errorf("parse fault %q: negative duration", text)
	}
	return Fault(text), nil
}

// split returns the name and the duration of a fault.
func (f Fault) split() (name string, d time.Duration) {
	name, value, _ := strings.Cut(string(f), "=")
	d, _ = time.ParseDuration(value) // an ill-formed one is none
	return name, d
}

// Inject queues faults for the requests to come, one each, in order. The empty
// Fault lets one request pass unharmed.
func (s *Server) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, faults...)
}

// SetFault makes the fault befall every answer, once the queue of Inject is
// empty; the empty Fault ends that. It leaves the queue alone.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *Server) nextFault() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return s.fault
	}
	f := s.queue[0]
	s.queue = s.queue[1:]
	return f
}
