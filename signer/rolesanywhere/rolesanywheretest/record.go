package rolesanywheretest

import (
	"maps"
	"net/http"
	"slices"
	"time"
)

// maxRecords bounds what Requests returns; a lab may run for days.
const maxRecords = 10000

// Request is what the server saw of one request and made of it.
type Request struct {
	ID         string    // x-amzn-RequestId of the answer
	Time       time.Time // by the server's Clock
	Method     string
	URL        string // the request target as sent: path and query
	Host       string
	Header     http.Header
	Body       []byte
	RemoteAddr string

	// Algorithm and Serial (decimal) are what Authorization claims, empty if
	// it could not be parsed.
	Algorithm string
	Serial    string

	// UnknownMembers are the JSON members of the body that the service does
	// not know. It ignores them; a client that sends one has a bug.
	UnknownMembers []string

	// Status, ErrorType and Message are the verdict on the request, which is
	// also the answer unless Fault spoilt it. Reason is what exactly was
	// wrong, in this package's words; the client never sees it.
	Status    int
	ErrorType string
	Message   string
	Reason    string

	// AccessKeyID is the session issued, if one was: see Server.Session.
	AccessKeyID string

	// Fault is what befell the answer.
	Fault Fault
}

// Session is what the server knows of credentials it issued.
type Session struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Expiration      time.Time // whole seconds, UTC

	AssumedRoleARN string // arn:aws:sts::A:assumed-role/R/S
	AssumedRoleID  string // AROA…:S
	RoleARN        string
	ProfileARN     string
	TrustAnchorARN string
	SubjectARN     string
	SessionName    string
	SourceIdentity string

	// Tags are the session tags mapped from the certificate: aws:PrincipalTag
	// x509Subject/CN and so on.
	Tags map[string]string
}

// Requests returns what the server saw, oldest first: of the latest 10000
// requests, in the order in which they were judged.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := slices.Clone(s.records)
	for i, r := range records {
		records[i].Header = r.Header.Clone()
		records[i].Body = slices.Clone(r.Body)
		records[i].UnknownMembers = slices.Clone(r.UnknownMembers)
	}
	return records
}

// RequestCount returns how many requests the server saw in all.
func (s *Server) RequestCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// Session returns what was issued under an access key ID, expired or not. An
// STS that verifies SigV4 made with it finds the secret, the token to expect
// and the expiration to enforce here.
func (s *Server) Session(accessKeyID string) (Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.sessions[accessKeyID]
	session.Tags = maps.Clone(session.Tags)
	return session, ok
}

func (s *Server) record(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	if len(s.records) == maxRecords {
		s.records = slices.Delete(s.records, 0, maxRecords/10)
	}
	s.records = append(s.records, r)
}
