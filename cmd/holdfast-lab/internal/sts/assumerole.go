package sts

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	defaultDuration = time.Hour
	minDuration     = 15 * time.Minute
	maxDuration     = 12 * time.Hour
	// chainLimit bounds sessions made with a role's session.
	chainLimit = time.Hour
)

var namePattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

type assumeRoleResponse struct {
	XMLName        xml.Name `xml:"AssumeRoleResponse"`
	NS             string   `xml:"xmlns,attr"`
	SourceIdentity string   `xml:"AssumeRoleResult>SourceIdentity,omitempty"`
	RoleUserARN    string   `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	RoleUserID     string   `xml:"AssumeRoleResult>AssumedRoleUser>AssumedRoleId"`
	AccessKeyID    string   `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
	Secret         string   `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
	Token          string   `xml:"AssumeRoleResult>Credentials>SessionToken"`
	Expiration     string   `xml:"AssumeRoleResult>Credentials>Expiration"`
	RequestID      string   `xml:"ResponseMetadata>RequestId"`
}

func (r assumeRoleResponse) withID(id string) any { r.RequestID = id; return r }

// assumeRole issues a session. Policies, tags and MFA are taken and ignored.
func (h *Handler) assumeRole(caller Credentials, params url.Values) (result, error) {
	arn, name, source := params.Get("RoleArn"), params.Get("RoleSessionName"), params.Get("SourceIdentity")
	if len(arn) < 20 || len(arn) > 2048 {
		return nil, invalid("1 validation error detected: Value '%s' at 'roleArn' failed to satisfy constraint: Member must have length between 20 and 2048", arn)
	}
	if !namePattern.MatchString(name) {
		return nil, invalid(`1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]* and have length between 2 and 64`, name)
	}
	if source != "" && !namePattern.MatchString(source) {
		return nil, invalid(`1 validation error detected: Value '%s' at 'sourceIdentity' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`, source)
	}
	i := slices.IndexFunc(h.Roles, func(r Role) bool { return r.ARN == arn })
	if i < 0 {
		return nil, fail(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", caller.ARN, arn)
	}
	if caller.SourceIdentity != "" {
		if source != "" && source != caller.SourceIdentity {
			return nil, fail(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: sts:SetSourceIdentity on resource: %s", caller.ARN, arn)
		}
		source = caller.SourceIdentity
	}
	role := h.Roles[i]
	life, err := h.duration(params.Get("DurationSeconds"), role, caller)
	if err != nil {
		return nil, err
	}
	c := Credentials{
		AccessKeyID:     "ASIA" + rand.Text()[:16],
		SecretAccessKey: randomBase64(30),
		SessionToken:    randomBase64(240),
		Expiration:      h.now().Add(life).UTC().Truncate(time.Second),
		ARN:             sessionARN(arn, name),
		UserID:          role.ID + ":" + name,
		SourceIdentity:  source,
	}
	h.keep(c)
	return assumeRoleResponse{
		NS: namespace, SourceIdentity: source, RoleUserARN: c.ARN, RoleUserID: c.UserID,
		AccessKeyID: c.AccessKeyID, Secret: c.SecretAccessKey, Token: c.SessionToken,
		Expiration: c.Expiration.Format(time.RFC3339),
	}, nil
}

func (h *Handler) duration(text string, role Role, caller Credentials) (time.Duration, error) {
	least := h.MinDuration
	if least == 0 {
		least = minDuration
	}
	if text == "" {
		return defaultDuration, nil
	}
	seconds, err := strconv.Atoi(text)
	if err != nil {
		return 0, fail(http.StatusBadRequest, "MalformedInput", "DurationSeconds is no number")
	}
	most := role.MaxSessionDuration
	if most == 0 {
		most = time.Hour
	}
	switch {
	case seconds < int(least.Seconds()):
		return 0, invalid("1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to %d", seconds, int(least.Seconds()))
	case seconds > int(maxDuration.Seconds()):
		return 0, invalid("1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to %d", seconds, int(maxDuration.Seconds()))
	case caller.SessionToken != "" && seconds > int(chainLimit.Seconds()):
		return 0, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	case seconds > int(most.Seconds()):
		return 0, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return time.Duration(seconds) * time.Second, nil
}

// sessionARN turns arn:aws:iam::A:role/path/R into
// arn:aws:sts::A:assumed-role/R/S.
func sessionARN(roleARN, session string) string {
	parts := strings.SplitN(roleARN, ":", 6)
	name := roleARN[strings.LastIndexByte(roleARN, '/')+1:]
	return "arn:" + parts[1] + ":sts::" + account(roleARN) + ":assumed-role/" + name + "/" + session
}

// keep remembers what was issued, and forgets what has long expired: a lab may
// run for days.
func (h *Handler) keep(c Credentials) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.issued == nil {
		h.issued = map[string]Credentials{}
	}
	for id, old := range h.issued {
		if h.now().Sub(old.Expiration) > maxDuration {
			delete(h.issued, id)
		}
	}
	h.issued[c.AccessKeyID] = c
}

func randomBase64(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}
