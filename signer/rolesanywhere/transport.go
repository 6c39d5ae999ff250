package rolesanywhere

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

// TransportOptions configure [NewTransport].
type TransportOptions struct {
	// RootCAs replaces the system's roots; nil keeps them.
	RootCAs *x509.CertPool
	// InsecureSkipVerify accepts any server. Whoever answers then receives
	// the certificate and can hand out credentials of his own.
	InsecureSkipVerify bool
}

// NewTransport returns the transport that a [Client] uses by default: proxies
// from HTTPS_PROXY, HTTP_PROXY and NO_PROXY, TLS 1.2 or later, bounded
// connection set-up. Connections are not kept idle for long, since sessions
// are far apart.
func NewTransport(o TransportOptions) *http.Transport {
	return &http.Transport{
		Proxy:                 proxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       10 * time.Second,
		MaxIdleConnsPerHost:   2,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            o.RootCAs,
			InsecureSkipVerify: o.InsecureSkipVerify, //nolint:gosec // asked for by name
		},
	}
}

// proxyFromEnvironment is http.ProxyFromEnvironment without its error, which
// quotes the variable and with it a password.
func proxyFromEnvironment(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, errors.New("HTTPS_PROXY or HTTP_PROXY holds no proxy address (http://HOST:PORT)")
	}
	return u, nil
}

// A DeadlineError is the cause of a context that ran out; it wraps
// context.DeadlineExceeded. A caller whose own deadline is to be told in the
// same words passes it to context.WithTimeoutCause.
type DeadlineError struct{ After time.Duration }

func (e *DeadlineError) Error() string { return fmt.Sprintf("no answer within %v", e.After) }
func (*DeadlineError) Timeout() bool   { return true }
func (*DeadlineError) Is(target error) bool {
	return target == context.DeadlineExceeded
}

// transportError is a request that found no answer.
type transportError struct {
	doing string
	host  string
	hint  string
	retry bool
	err   error
}

func newTransportError(ctx context.Context, target *url.URL, doing string, err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err // its URL is long and said nothing new
	}
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		err = cause
	}
	e := &transportError{doing: doing, host: target.Host, err: err, retry: !errors.Is(err, context.Canceled)}
	var dns *net.DNSError
	var unknownCA x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &dns):
		e.retry = !dns.IsNotFound
		e.hint = "check this machine's DNS and the region; behind a proxy set HTTPS_PROXY"
	case errors.As(err, &unknownCA):
		e.retry = false
		e.hint = "the server's certificate is of no CA this machine knows: install ca-certificates, or name the proxy's CA with AWS_CA_BUNDLE"
	case errors.As(err, &wrongHost):
		e.retry = false
		e.hint = "another server answers under this name: look for a captive portal or a proxy"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.retry = false
		e.hint = "the server's certificate is out of its validity: check this machine's clock"
	case errors.As(err, &verify):
		e.retry = false
	case errors.As(err, &record):
		e.retry = false
		e.hint = "the endpoint does not speak TLS: check the scheme of --endpoint and of the proxy"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.hint = "nothing listens there: check --endpoint and the proxy"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		e.hint = "this machine has no route there: check its network, or set HTTPS_PROXY"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		e.hint = "the connection was cut before the answer was whole: look for a proxy or firewall between"
	case errors.Is(err, context.DeadlineExceeded):
		e.hint = "check the network and the proxy between this machine and AWS"
	}
	return e
}

func (e *transportError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.doing, e.host, oneLine(e.err.Error()))
}
func (e *transportError) Unwrap() []error      { return []error{e.err, ErrUnreachable} }
func (e *transportError) Hint() string         { return e.hint }
func (e *transportError) RetryableError() bool { return e.retry }

// answerError is a success that holds no session, such as an empty body.
type answerError struct {
	status string
	host   string
	bytes  int
}

func (e *answerError) Error() string {
	return fmt.Sprintf("%s answered %s with %d bytes that hold no credentials", e.host, e.status, e.bytes)
}
func (*answerError) Unwrap() error        { return ErrUnexpectedAnswer }
func (*answerError) RetryableError() bool { return true }
func (*answerError) Hint() string {
	return "something between this machine and AWS changes the answers, or --endpoint is no IAM Roles Anywhere"
}

// intercepted recognises what a captive portal or a filtering proxy answers in
// AWS's place: a redirect, or a web page.
func intercepted(resp *http.Response, text []byte, target *url.URL) error {
	const hint = "a captive portal or a proxy stands between: log in to the network, or set HTTPS_PROXY"
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		where := "another address"
		if u, err := resp.Location(); err == nil {
			where = u.Scheme + "://" + u.Host
		}
		return signer.WithHint(fmt.Errorf("%w: %s redirects to %s, which AWS never does", ErrIntercepted, target.Host, oneLine(where)), hint)
	}
	trimmed := bytes.TrimLeft(text, " \t\r\n\ufeff")
	isHTML := strings.Contains(strings.ToLower(resp.Header.Get("Content-Type")), "html")
	if !isHTML && !bytes.HasPrefix(trimmed, []byte("<")) {
		return nil
	}
	err := fmt.Errorf("%w: %s answered %d with a web page%s (HTML)", ErrIntercepted, target.Host, resp.StatusCode, pageTitle(trimmed))
	if resp.StatusCode >= 500 {
		return &retryableError{signer.WithHint(err, hint)}
	}
	return signer.WithHint(err, hint)
}

// retryableError marks what a gateway in trouble answers.
type retryableError struct{ error }

func (e *retryableError) Unwrap() error        { return e.error }
func (e *retryableError) RetryableError() bool { return true }

func pageTitle(html []byte) string {
	lower := bytes.ToLower(html)
	start := bytes.Index(lower, []byte("<title>"))
	if start < 0 || len(lower) != len(html) {
		return ""
	}
	start += len("<title>")
	end := bytes.Index(lower[start:], []byte("</title>"))
	if end < 0 {
		return ""
	}
	if title := oneLine(string(html[start : start+end])); title != "" {
		if len(title) > 80 {
			title = strings.ToValidUTF8(title[:80], "") + "…"
		}
		return fmt.Sprintf(" titled %q", title)
	}
	return ""
}
