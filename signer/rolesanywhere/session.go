package rolesanywhere

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/holdfast-iam/holdfast/signer"
)

// Bounds of a session's length, as CreateSession takes them.
const (
	MinDuration     = 900 * time.Second
	MaxDuration     = 43200 * time.Second
	DefaultDuration = 3600 * time.Second
)

// ErrInput says that a SessionInput cannot be sent.
var ErrInput = errors.New("invalid session parameter")

// SessionInput names the session wanted. The three ARNs are required.
type SessionInput struct {
	TrustAnchorARN string
	ProfileARN     string
	RoleARN        string

	// Duration of the session in whole seconds, [MinDuration] to
	// [MaxDuration]; zero means [DefaultDuration]. AWS grants the smaller of
	// this and the profile's own.
	Duration time.Duration

	// RoleSessionName is 2 to 64 of A–Z a–z 0–9 _ + = , . @ -. Empty, AWS
	// uses the certificate's serial. The profile must allow it.
	RoleSessionName string
}

// A Session is what CreateSession returned.
type Session struct {
	// Credentials, with Expires in UTC and AccountID set.
	Credentials aws.Credentials

	AssumedRoleARN   string
	AssumedRoleID    string
	RoleARN          string
	SubjectARN       string
	SourceIdentity   string
	PackedPolicySize int // percent of the limit

	// RequestID is AWS's, for support and audit.
	RequestID string
}

// check validates in and returns the region of its trust anchor.
func (in *SessionInput) check() (region string, err error) {
	anchor, err := parseARN("trust anchor", in.TrustAnchorARN, service, "trust-anchor/")
	if err != nil {
		return "", err
	}
	profile, err := parseARN("profile", in.ProfileARN, service, "profile/")
	if err != nil {
		return "", err
	}
	if _, err := parseARN("role", in.RoleARN, "iam", "role/"); err != nil {
		return "", err
	}
	if anchor.Region != profile.Region {
		return "", signer.WithHint(
			fmt.Errorf("%w: the trust anchor is in %s, the profile in %s", ErrInput, anchor.Region, profile.Region),
			"a profile works only with trust anchors of its own region: create one beside the other")
	}
	if d := in.Duration; d != 0 && (d < MinDuration || d > MaxDuration || d%time.Second != 0) {
		return "", signer.WithHint(
			fmt.Errorf("%w: session duration %v", ErrInput, d),
			fmt.Sprintf("give %d to %d whole seconds", int(MinDuration.Seconds()), int(MaxDuration.Seconds())))
	}
	if in.RoleSessionName != "" && !isSessionName(in.RoleSessionName) {
		return "", signer.WithHint(
			fmt.Errorf("%w: role session name %q", ErrInput, in.RoleSessionName),
			"use 2 to 64 characters of A-Z a-z 0-9 _ + = , . @ -")
	}
	return anchor.Region, nil
}

func isSessionName(s string) bool {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_+=,.@-", r):
		default:
			return false
		}
	}
	return len(s) >= 2 && len(s) <= 64
}

func parseARN(what, s, wantService, prefix string) (arn.ARN, error) {
	a, err := arn.Parse(s)
	if s == "" {
		return a, fmt.Errorf("%w: no %s ARN given", ErrInput, what)
	}
	name, hasPrefix := strings.CutPrefix(a.Resource, prefix)
	if err != nil || a.Service != wantService || !hasPrefix || name == "" || (wantService == service && a.Region == "") {
		region := "REGION"
		if wantService == "iam" {
			region = ""
		}
		return a, signer.WithHint(
			fmt.Errorf("%w: %q is not the ARN of a %s", ErrInput, s, what),
			fmt.Sprintf("it looks like arn:aws:%s:%s:ACCOUNT:%s…", wantService, region, prefix))
	}
	return a, nil
}
