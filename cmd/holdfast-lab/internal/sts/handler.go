package sts

import (
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	apiVersion = "2011-06-15"
	namespace  = "https://sts.amazonaws.com/doc/2011-06-15/"

	// maxBody is more than AWS takes.
	maxBody = 256 << 10
)

// Credentials are what the service knows of an access key.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	// SessionToken is what x-amz-security-token must hold; empty for a
	// long-lived key, which must come without the header.
	SessionToken string
	// Expiration is zero for a key that never expires.
	Expiration time.Time

	ARN    string // arn:aws:sts::A:assumed-role/R/S
	UserID string // AROA…:S

	// SourceIdentity, once set, stays with every session made from this one.
	SourceIdentity string
}

// Role is a role that AssumeRole hands out to whoever asks.
type Role struct {
	ARN string // arn:aws:iam::A:role/R
	ID  string // AROA…
	// MaxSessionDuration is by default an hour, as in IAM.
	MaxSessionDuration time.Duration
}

// Handler is the service. Its fields must not change once it serves. The zero
// value refuses every request for an unknown key.
type Handler struct {
	// Lookup finds the access keys that did not come from AssumeRole. It is
	// called from several goroutines.
	Lookup func(accessKeyID string) (Credentials, bool)

	// Region is what credential scopes must name, us-east-1 if empty.
	Region string

	// Roles are the roles that may be assumed.
	Roles []Role

	// MaxClockSkew is how far a request's date may lie from Clock in either
	// direction; 0 means 5 minutes.
	MaxClockSkew time.Duration

	// Clock is by default time.Now.
	Clock func() time.Time

	// MinDuration is the shortest session AssumeRole grants; 0 means AWS's
	// 15 minutes.
	MinDuration time.Duration

	mu     sync.Mutex
	issued map[string]Credentials // by access key id, from AssumeRole
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	requestID := newRequestID()
	result, err := h.answer(r)
	w.Header().Set("x-amzn-RequestId", requestID)
	w.Header().Set("Content-Type", "text/xml")
	if err != nil {
		e := internalFailure
		errors.As(err, &e)
		writeXML(w, e.Status, errorResponse{NS: namespace, Type: e.fault(), Code: e.Code, Message: e.Message, RequestID: requestID})
		return
	}
	writeXML(w, http.StatusOK, result.withID(requestID))
}

// A result is an operation's answer, which carries the request's id inside.
type result interface{ withID(requestID string) any }

func (h *Handler) answer(r *http.Request) (result, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, fail(http.StatusBadRequest, "MalformedInput", "the body could not be read")
	}
	if len(body) > maxBody {
		return nil, fail(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "the body is too long")
	}
	if r.URL.Path != "/" && r.URL.Path != "" {
		return nil, fail(http.StatusNotFound, "UnknownOperationException", "")
	}
	caller, err := h.authenticate(r, body)
	if err != nil {
		return nil, err
	}
	params, err := parameters(r, body)
	if err != nil {
		return nil, err
	}
	switch action, version := params.Get("Action"), params.Get("Version"); {
	case action == "":
		return nil, fail(http.StatusBadRequest, "MissingAction", "Missing Action")
	case version == "":
		return nil, fail(http.StatusBadRequest, "InvalidAction", "Could not find operation %s for version NO_VERSION_SPECIFIED", action)
	case version == apiVersion && action == "GetCallerIdentity":
		return callerIdentity(caller), nil
	case version == apiVersion && action == "AssumeRole":
		return h.assumeRole(caller, params)
	default:
		return nil, fail(http.StatusBadRequest, "InvalidAction", "Could not find operation %s for version %s", action, version)
	}
}

// parameters returns the operation's input: a POST's form, a GET's query.
func parameters(r *http.Request, body []byte) (url.Values, error) {
	raw := r.URL.RawQuery
	switch r.Method {
	case http.MethodGet:
		if len(body) > 0 {
			return nil, fail(http.StatusBadRequest, "MalformedInput", "a GET request with a body")
		}
	case http.MethodPost:
		if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/x-www-form-urlencoded" {
			return nil, fail(http.StatusBadRequest, "MalformedInput", "the content type is %q, not application/x-www-form-urlencoded", t)
		}
		raw = string(body)
	default:
		return nil, fail(http.StatusMethodNotAllowed, "MalformedInput", "the method %s is not supported", r.Method)
	}
	params, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "MalformedQueryString", "the parameters are not form-encoded")
	}
	for name, values := range params {
		if len(values) > 1 {
			return nil, fail(http.StatusBadRequest, "MalformedInput", "the parameter %s appears twice", name)
		}
	}
	return params, nil
}

type callerIdentityResponse struct {
	XMLName   xml.Name `xml:"GetCallerIdentityResponse"`
	NS        string   `xml:"xmlns,attr"`
	ARN       string   `xml:"GetCallerIdentityResult>Arn"`
	UserID    string   `xml:"GetCallerIdentityResult>UserId"`
	Account   string   `xml:"GetCallerIdentityResult>Account"`
	RequestID string   `xml:"ResponseMetadata>RequestId"`
}

func callerIdentity(c Credentials) result {
	return callerIdentityResponse{NS: namespace, ARN: c.ARN, UserID: c.UserID, Account: account(c.ARN)}
}

func (r callerIdentityResponse) withID(id string) any { r.RequestID = id; return r }

// account returns an ARN's account.
func account(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

func writeXML(w http.ResponseWriter, status int, v any) {
	body, err := xml.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, nil
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may have left
}

func newRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (h *Handler) now() time.Time {
	if h.Clock != nil {
		return h.Clock()
	}
	return time.Now()
}
