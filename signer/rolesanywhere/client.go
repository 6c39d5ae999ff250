package rolesanywhere

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/holdfast-iam/holdfast/signer"
)

// Defaults of [Options].
const (
	DefaultTimeout        = 30 * time.Second
	DefaultAttemptTimeout = 10 * time.Second
)

// Options configure a [Client]. The zero value is right for production.
type Options struct {
	// Region to sign for and to send to; empty means the trust anchor's. A
	// pseudo-region such as "us-east-1-fips" selects the FIPS endpoint.
	Region string

	// Endpoint overrides the URL that follows from the region.
	Endpoint     string
	UseFIPS      bool
	UseDualStack bool

	// Timeout bounds CreateSession as a whole, retries and the key's own
	// work included; zero means [DefaultTimeout].
	Timeout time.Duration
	// AttemptTimeout bounds one request; zero means [DefaultAttemptTimeout].
	AttemptTimeout time.Duration

	// Transport sends the requests; nil means one that [NewTransport] makes of
	// TransportOptions, and that connects while the key signs.
	Transport        http.RoundTripper
	TransportOptions TransportOptions

	// Retryer decides what is tried again, and when; nil means the SDK's
	// retry.NewStandard, 3 attempts.
	Retryer aws.RetryerV2

	// UserAgent is sent if not empty.
	UserAgent string

	// Logger receives what is sent and answered at debug level, without
	// signatures and credentials; nil means silence.
	Logger *slog.Logger

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Client makes sessions for one identity. It is safe for concurrent use and
// keeps the identity open, which stays the caller's to close.
type Client struct {
	id      *signer.Identity
	o       Options
	hc      *http.Client
	connect *connector // nil with a Transport of the caller's
}

// New returns a client. It does no I/O.
func New(id *signer.Identity, o Options) (*Client, error) {
	if _, _, err := algorithmOf(id.Public()); err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.AttemptTimeout == 0 {
		o.AttemptTimeout = DefaultAttemptTimeout
	}
	var connect *connector
	if o.Transport == nil {
		t := NewTransport(o.TransportOptions)
		o.Transport, connect = t, newConnector(t)
	}
	if o.Retryer == nil {
		o.Retryer = retry.NewStandard()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Client{id: id, o: o, connect: connect, hc: &http.Client{
		Transport:     o.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// CreateSession checks in and the certificate, signs, sends, and tries again
// what may pass, within Options.Timeout. Its errors wrap [ErrInput],
// [ErrBadSignature], those of [CheckCertificate], or are an [*Error] or a
// failure of the network; all of them can carry a hint.
func (c *Client) CreateSession(ctx context.Context, in SessionInput) (*Session, error) {
	region, err := in.check()
	if err != nil {
		return nil, err
	}
	if err := CheckCertificate(c.id.Certificate(), c.o.Now()); err != nil {
		return nil, err
	}
	endpoint, region, err := resolveEndpoint(&c.o, region)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, &DeadlineError{c.o.Timeout})
	defer cancel()
	target, body := request(endpoint, &in)

	var signed http.Header
	var signedAt time.Time
	release, err := c.o.Retryer.GetAttemptToken(ctx)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		// A signature is used again for a retry soon after, since making one
		// may cost a touch or a second on the key's hardware.
		if now := c.o.Now(); signed == nil || now.Sub(signedAt).Abs() > time.Minute {
			signed, signedAt = nil, now
			if c.connect != nil {
				c.connect.begin(ctx, target)
				defer c.connect.end()
			}
			req := c.newRequest(ctx, target, body)
			if err := Sign(req, body, c.id, region, now); err != nil {
				return nil, err
			}
			signed = req.Header
			canonical, _ := canonicalRequest(req, body)
			c.o.Logger.Debug("signed", "certificate", c.id.Certificate().Subject.String(), "region", region, "canonicalRequest", elide(canonical))
		}
		s, err := c.attempt(ctx, attempt, target, body, signed)
		if releaseErr := release(err); releaseErr != nil && err == nil {
			err = releaseErr
		}
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil || attempt >= c.o.Retryer.MaxAttempts() || !c.o.Retryer.IsErrorRetryable(err) {
			return nil, explain(ctx, err, attempt)
		}
		if release, err = c.backOff(ctx, attempt, err); err != nil {
			return nil, explain(ctx, err, attempt)
		}
	}
}

// backOff waits as the retryer says, if the deadline allows, or returns why
// not: always the failure that was to be retried.
func (c *Client) backOff(ctx context.Context, attempt int, cause error) (release func(error) error, err error) {
	release, err = c.o.Retryer.GetRetryToken(ctx, cause)
	if err != nil {
		return nil, cause
	}
	delay, err := c.o.Retryer.RetryDelay(attempt, cause)
	if err != nil {
		return nil, cause
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < delay {
		return nil, cause
	}
	c.o.Logger.Debug("retry", "attempt", attempt, "after", delay, "cause", cause.Error())
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return release, nil
	case <-ctx.Done():
		return nil, cause
	}
}

func request(endpoint *url.URL, in *SessionInput) (target *url.URL, body []byte) {
	u := *endpoint
	u.Path = strings.TrimSuffix(u.Path, "/") + "/sessions"
	u.RawQuery = canonicalQuery(url.Values{
		"profileArn":     {in.ProfileARN},
		"roleArn":        {in.RoleARN},
		"trustAnchorArn": {in.TrustAnchorARN},
	})
	d := in.Duration
	if d == 0 {
		d = DefaultDuration
	}
	payload := struct {
		DurationSeconds int    `json:"durationSeconds"`
		RoleSessionName string `json:"roleSessionName,omitempty"`
	}{int(d / time.Second), in.RoleSessionName}
	body, _ = json.Marshal(payload) // an int and a checked string: cannot fail
	return &u, body
}

func (c *Client) newRequest(ctx context.Context, target *url.URL, body []byte) *http.Request {
	req := (&http.Request{
		Method:        http.MethodPost,
		URL:           target,
		Host:          target.Host,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	if c.o.UserAgent != "" {
		req.Header.Set("User-Agent", c.o.UserAgent)
	}
	return req
}

// attempt sends the signed request once.
func (c *Client) attempt(ctx context.Context, n int, target *url.URL, body []byte, signed http.Header) (*Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.AttemptTimeout, &DeadlineError{c.o.AttemptTimeout})
	defer cancel()
	req := c.newRequest(ctx, target, body)
	req.Header = signed.Clone()
	start := time.Now()
	resp, err := c.hc.Do(req)
	if err != nil {
		c.o.Logger.Debug("send", "attempt", n, "url", target.Redacted(), "error", err.Error())
		return nil, newTransportError(ctx, target, "send", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	c.o.Logger.Debug("answer", "attempt", n, "url", target.Redacted(), "status", resp.Status, "type", resp.Header.Get("Content-Type"),
		"requestID", resp.Header.Get("X-Amzn-Requestid"), "date", resp.Header.Get("Date"), "bytes", len(text), "took", time.Since(start))
	if err != nil {
		return nil, newTransportError(ctx, target, "read the answer of", err)
	}
	return c.parseAnswer(resp, text, target)
}

func (c *Client) parseAnswer(resp *http.Response, text []byte, target *url.URL) (*Session, error) {
	if err := intercepted(resp, text, target); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return nil, c.parseError(resp, text)
	}
	var answer struct {
		CredentialSet []struct {
			AssumedRoleUser struct {
				ARN           string `json:"arn"`
				AssumedRoleID string `json:"assumedRoleId"`
			} `json:"assumedRoleUser"`
			Credentials struct {
				AccessKeyID     string    `json:"accessKeyId"`
				SecretAccessKey string    `json:"secretAccessKey"`
				SessionToken    string    `json:"sessionToken"`
				Expiration      time.Time `json:"expiration"`
			} `json:"credentials"`
			PackedPolicySize int    `json:"packedPolicySize"`
			RoleARN          string `json:"roleArn"`
			SourceIdentity   string `json:"sourceIdentity"`
		} `json:"credentialSet"`
		SubjectARN string `json:"subjectArn"`
	}
	// The decoder's error may quote the answer, and with it a secret: it is dropped.
	if json.Unmarshal(text, &answer) != nil || len(answer.CredentialSet) == 0 {
		return nil, &answerError{resp.Status, target.Host, len(text)}
	}
	set := answer.CredentialSet[0]
	cr := set.Credentials
	if cr.AccessKeyID == "" || cr.SecretAccessKey == "" || cr.SessionToken == "" || cr.Expiration.IsZero() {
		return nil, &answerError{resp.Status, target.Host, len(text)}
	}
	role, _ := arn.Parse(set.AssumedRoleUser.ARN)
	return &Session{
		Credentials: aws.Credentials{
			AccessKeyID:     cr.AccessKeyID,
			SecretAccessKey: cr.SecretAccessKey,
			SessionToken:    cr.SessionToken,
			Source:          ProviderName,
			CanExpire:       true,
			Expires:         cr.Expiration.UTC(),
			AccountID:       role.AccountID,
		},
		AssumedRoleARN:   set.AssumedRoleUser.ARN,
		AssumedRoleID:    set.AssumedRoleUser.AssumedRoleID,
		RoleARN:          set.RoleARN,
		SubjectARN:       answer.SubjectARN,
		SourceIdentity:   set.SourceIdentity,
		PackedPolicySize: set.PackedPolicySize,
		RequestID:        resp.Header.Get("X-Amzn-Requestid"),
	}, nil
}

// parseError reads a rest-json error.
func (c *Client) parseError(resp *http.Response, text []byte) error {
	var doc struct {
		Code         string `json:"code"`
		Type         string `json:"__type"`
		Message      string `json:"message"`
		UpperMessage string `json:"Message"`
	}
	_ = json.Unmarshal(text, &doc) // an error without JSON is told by its status
	code := resp.Header.Get("X-Amzn-Errortype")
	for _, other := range []string{doc.Code, doc.Type} {
		if code == "" {
			code = other
		}
	}
	code, _, _ = strings.Cut(code, ":")
	if _, after, ok := strings.Cut(code, "#"); ok {
		code = after
	}
	e := &Error{
		StatusCode: resp.StatusCode,
		Code:       oneLine(code),
		Message:    doc.Message,
		RequestID:  resp.Header.Get("X-Amzn-Requestid"),
	}
	if e.Message == "" {
		e.Message = doc.UpperMessage
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		e.Skew = c.o.Now().Sub(date).Round(time.Second)
	}
	e.classify()
	return e
}

// elide shortens the base64 of certificates in a canonical request.
func elide(canonical string) string {
	lines := strings.Split(canonical, "\n")
	for i, l := range lines {
		if len(l) > 300 && strings.HasPrefix(l, "x-amz-x509") {
			lines[i] = l[:60] + fmt.Sprintf("…(%d bytes)", len(l))
		}
	}
	return strings.Join(lines, "\n")
}

// explain adds to a final error how often it was tried, and which deadline it
// met.
func explain(ctx context.Context, err error, attempts int) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		if errors.Is(cause, context.Canceled) {
			err = fmt.Errorf("%w: %w", cause, err)
		} else {
			err = fmt.Errorf("%w; the last failure: %w", cause, err)
		}
	}
	if attempts > 1 {
		return fmt.Errorf("%w (%d attempts)", err, attempts)
	}
	return err
}
