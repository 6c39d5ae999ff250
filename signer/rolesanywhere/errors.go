package rolesanywhere

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/smithy-go"
)

// Why there is no session. An [*Error] wraps one of these when AWS's message is
// known; the last four are for answers that are not AWS's own, or none.
var (
	ErrInvalidSignature     = errors.New("signature refused")
	ErrClockSkew            = errors.New("this machine's clock is wrong")
	ErrUntrusted            = errors.New("certificate not trusted by the trust anchor")
	ErrInsufficient         = errors.New("certificate not fit for signing")
	ErrRevoked              = errors.New("certificate revoked")
	ErrSessionNameForbidden = errors.New("role session name not accepted by the profile")
	ErrAttributeMapping     = errors.New("certificate attributes cannot be mapped to session tags")
	ErrDurationExceedsRole  = errors.New("session duration exceeds the role's maximum")
	ErrAssumeRoleRefused    = errors.New("role refused the session")
	ErrTrustAnchorNotFound  = errors.New("trust anchor not found")
	ErrProfileNotFound      = errors.New("profile not found")
	ErrRoleNotInProfile     = errors.New("role not listed in the profile")
	ErrThrottled            = errors.New("throttled")
	ErrServiceFault         = errors.New("AWS service fault")
	ErrUnreachable          = errors.New("no answer from AWS")
	ErrIntercepted          = errors.New("the answer did not come from AWS")
	ErrUnexpectedAnswer     = errors.New("unexpected answer")

	errUnclassified = errors.New("refused")
)

// An Error is an answer of IAM Roles Anywhere that is no session. It
// implements smithy.APIError, and wraps the sentinel of this package that
// fits, for errors.Is.
type Error struct {
	StatusCode int
	Code       string // "AccessDeniedException"; empty if AWS sent none
	Message    string // AWS's own words
	RequestID  string // AWS's, for support

	// Skew is how far this machine's clock is ahead of the answer's Date
	// header; negative when behind, zero when AWS sent no date.
	Skew time.Duration

	kind error
	hint string
}

// Error is one line: what AWS answered, and what that means if it is known.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CreateSession: %d", e.StatusCode)
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", strings.TrimSuffix(oneLine(e.Message), "."))
	}
	switch {
	case errors.Is(e.kind, ErrClockSkew):
		fmt.Fprintf(&b, " (%s)", describeSkew(e.Skew))
	case e.kind != nil && e.kind != errUnclassified:
		fmt.Fprintf(&b, " (%v)", e.kind)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, ", request %s", oneLine(e.RequestID))
	}
	return b.String()
}

var _ smithy.APIError = (*Error)(nil)

func (e *Error) Unwrap() error                 { return e.kind }
func (e *Error) Hint() string                  { return e.hint }
func (e *Error) HTTPStatusCode() int           { return e.StatusCode }
func (e *Error) ErrorCode() string             { return e.Code }
func (e *Error) ErrorMessage() string          { return e.Message }
func (e *Error) ErrorFault() smithy.ErrorFault { return faultOf(e.StatusCode) }

// RetryableError adds to the SDK's rules that a bare 429 is a throttle.
func (e *Error) RetryableError() bool { return e.StatusCode == 429 || e.StatusCode >= 500 }

func faultOf(status int) smithy.ErrorFault {
	if status >= 500 {
		return smithy.FaultServer
	}
	return smithy.FaultClient
}

// tolerableSkew is what AWS is known to forgive.
const tolerableSkew = 5 * time.Minute

func describeSkew(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("this machine's clock is %v behind AWS's", -d)
	}
	return fmt.Sprintf("this machine's clock is %v ahead of AWS's", d)
}

type diagnosis struct {
	text string // part of AWS's message
	kind error
	hint string
}

// diagnoses are tried in order: the precise before the general.
func diagnoses() []diagnosis {
	return []diagnosis{
		{"Untrusted certificate. Insufficient certificate", ErrInsufficient,
			"the certificate needs CA:FALSE and keyUsage digitalSignature; it must not be a CA's"},
		{"Untrusted signing certificate", ErrUntrusted,
			"check that the trust anchor holds the CA at the top of the certificate's chain and is enabled, and give missing intermediates with --intermediates"},
		{"Certificate revoked", ErrRevoked,
			"the trust anchor's CRL lists this certificate: request a new one with a new key"},
		{"Not authorized to set roleSessionName", ErrSessionNameForbidden,
			"leave --role-session-name away, or set acceptRoleSessionName on the profile"},
		{"attributes failed to be mapped", ErrAttributeMapping,
			"the certificate's subject, issuer or SAN holds characters that session tags do not take: change the profile's attribute mappings, or issue a certificate without them"},
		{"exceeds the MaxSessionDuration", ErrDurationExceedsRole,
			"ask for a shorter --session-duration, or raise the role's maximum session duration"},
		{"Specified Trust Anchor wasn't found", ErrTrustAnchorNotFound,
			"check the trust anchor's ARN, its account and its region"},
		{"Invalid or empty profile provided", ErrProfileNotFound,
			"check the profile's ARN, its region, and that it is enabled"},
		{"isn't one of those listed in the Profile", ErrRoleNotInProfile,
			"add the role to the profile's roleArns, or name another profile"},
		{"Unable to assume role", ErrAssumeRoleRefused,
			"the role's trust policy must let rolesanywhere.amazonaws.com do sts:AssumeRole, sts:TagSession and sts:SetSourceIdentity, and its conditions must fit this certificate and trust anchor"},
		{"Invalid signature", ErrInvalidSignature,
			"the clock is right; check that the certificate is the one issued for this key, and that no proxy rewrites the request"},
	}
}

// classify fills in kind and hint from the rest.
func (e *Error) classify() {
	e.kind = errUnclassified
	for _, d := range diagnoses() {
		if strings.Contains(e.Message, d.text) {
			e.kind, e.hint = d.kind, d.hint
			break
		}
	}
	skewed := e.Skew > tolerableSkew || e.Skew < -tolerableSkew
	switch {
	case skewed && (e.kind == ErrInvalidSignature || (e.kind == errUnclassified && e.StatusCode/100 == 4 && e.StatusCode != 429)):
		e.kind = ErrClockSkew
		e.hint = "set the clock (for example with chronyc makestep or timedatectl set-ntp true) and try again"
	case e.kind != errUnclassified:
	case e.StatusCode == 429 || strings.Contains(e.Code, "Throttl") || strings.Contains(e.Code, "TooManyRequests"):
		e.kind = ErrThrottled
		e.hint = "an account may make 10 CreateSession calls a second: cache credentials, spread the calls, or ask AWS for a higher quota"
	case e.StatusCode >= 500:
		e.kind = ErrServiceFault
		e.hint = "the fault is on AWS's side and often passes: try again"
	case e.Code == "" && e.Message == "":
		e.kind = ErrUnexpectedAnswer
		e.hint = "what answers there is no IAM Roles Anywhere: check --endpoint and the proxy"
	}
}

// oneLine keeps what a server sent from breaking a one-line message or a
// terminal, and bounds its length.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 600 {
		s = strings.ToValidUTF8(s[:600], "") + "…"
	}
	return s
}
