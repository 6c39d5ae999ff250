package rolesanywheretest

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// assumeRole makes the checks of the profile and the role and issues a
// session for a certificate that was found good.
func (s *Server) assumeRole(in input, leaf *x509.Certificate, now time.Time) (Session, *Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	profile, refusal := s.profileFor(in)
	if refusal != nil {
		return Session{}, refusal
	}
	serial := fmt.Sprintf("%x", leaf.SerialNumber)
	name := serial
	if in.roleSessionName != nil {
		if !profile.AcceptRoleSessionName {
			return Session{}, denied(msgRoleSessionName, "the profile's acceptRoleSessionName is false")
		}
		name = *in.roleSessionName
	}
	r, ok := s.roles[in.roleARN]
	if !ok {
		return Session{}, unassumable(in.roleARN, "", "the role is unknown to this server")
	}
	tags, failed := mapAttributes(leaf, profile.AttributeMappings)
	if failed != "" {
		return Session{}, unassumable(in.roleARN, msgAttributesNotTags+" "+failed, "a value is no legal tag value, or longer than 256 characters")
	}
	role, _ := parseARN(in.roleARN, "iam", "role") // it was checked before
	session := Session{
		AssumedRoleARN: "arn:" + role.partition + ":sts::" + role.account + ":assumed-role/" + role.name() + "/" + name,
		AssumedRoleID:  r.id + ":" + name,
		RoleARN:        in.roleARN,
		ProfileARN:     in.profileARN,
		TrustAnchorARN: in.trustAnchorARN,
		SubjectARN:     s.subjectARN(leaf),
		SessionName:    name,
		SourceIdentity: sourceIdentity(leaf, serial),
		Tags:           tags,
	}
	if reason := r.Trust.refuses(session); reason != "" {
		return Session{}, unassumable(in.roleARN, "", reason)
	}
	length := profile.length()
	if in.durationSeconds != nil {
		length = min(length, time.Duration(*in.durationSeconds)*time.Second)
	}
	if longest := orHour(r.MaxSessionDuration); length > longest {
		return Session{}, unassumable(in.roleARN, msgMaxSession, fmt.Sprintf("%s asked for, the role allows %s", length, longest))
	}
	s.issue(&session, now.Add(length))
	return session, nil
}

// profileFor finds the profile and checks it against the request and against
// what CreateProfile would have let pass.
func (s *Server) profileFor(in input) (*Profile, *Refusal) {
	profile, ok := s.profiles[in.profileARN]
	if !ok { // status and type not observed, here and below
		return nil, denied(msgNoProfile, in.profileARN+" is unknown to this server")
	}
	own, _ := parseARN(in.profileARN, service, "profile")
	anchor, _ := parseARN(in.trustAnchorARN, service, "trust-anchor")
	length := profile.length()
	switch {
	case own.region != s.region():
		return nil, denied(msgNoProfile, fmt.Sprintf("the profile is of region %s, the endpoint of %s", own.region, s.region()))
	case own.account != anchor.account:
		return nil, denied(msgNoProfile, fmt.Sprintf("the profile is of account %s, the trust anchor of %s", own.account, anchor.account))
	case profile.Disabled:
		return nil, denied(msgProfileDisabled, in.profileARN)
	case len(profile.RoleARNs) == 0:
		return nil, denied(msgNoProfile, "the profile has no roles")
	case length < time.Duration(s.shortest())*time.Second || length > maxSession*time.Second:
		return nil, denied(msgNoProfile, fmt.Sprintf("the profile's duration %s is out of bounds", length))
	case !slices.Contains(profile.RoleARNs, in.roleARN):
		return nil, denied(msgRoleNotInProfile, in.roleARN)
	}
	return profile, nil
}

func (p *Profile) length() time.Duration { return orHour(p.Duration).Truncate(time.Second) }

func orHour(d time.Duration) time.Duration {
	if d == 0 {
		return time.Hour
	}
	return d
}

// refuses returns why the trust policy does not let the session be, or "".
func (t Trust) refuses(session Session) string {
	switch {
	case t.DenyTagSession && len(session.Tags) > 0:
		return "the trust policy lacks sts:TagSession"
	case t.DenySetSourceIdentity:
		return "the trust policy lacks sts:SetSourceIdentity"
	case len(t.SourceARNs) > 0 && !slices.Contains(t.SourceARNs, session.TrustAnchorARN):
		return "aws:SourceArn is " + session.TrustAnchorARN
	}
	for _, key := range slices.Sorted(maps.Keys(t.PrincipalTags)) {
		if got, ok := session.Tags[key]; !ok || got != t.PrincipalTags[key] {
			return fmt.Sprintf("aws:PrincipalTag/%s is %q, want %q", key, got, t.PrincipalTags[key])
		}
	}
	if t.Condition != nil {
		session.Tags = maps.Clone(session.Tags)
		if !t.Condition(session) {
			return "Trust.Condition returned false"
		}
	}
	return ""
}

// sourceIdentity derives what the service sets from the subject. A name that
// STS would not take, too long or with characters outside [\w+=,.@-], is
// passed over for the serial: what AWS does there was not observed.
func sourceIdentity(leaf *x509.Certificate, serial string) string {
	cn := leaf.Subject.CommonName
	switch {
	case cn == "" || len(cn) > 64 || !matches(`^[\w+=,.@-]+$`, cn):
		if len(serial)%2 == 1 {
			serial = "0" + serial
		}
		return "ID=" + serial
	case len(cn) > 61:
		return cn
	}
	return "CN=" + cn
}

// subjectARN returns the same ARN for certificates of the same subject.
func (s *Server) subjectARN(leaf *x509.Certificate) string {
	subject := string(leaf.RawSubject)
	if _, ok := s.subjects[subject]; !ok {
		s.subjects[subject] = s.regionalARN("subject/" + newUUID())
	}
	return s.subjects[subject]
}

// issue gives the session its credentials and remembers it.
func (s *Server) issue(session *Session, expiration time.Time) {
	session.AccessKeyID = newID("ASIA", 16)
	session.SecretAccessKey = newSecret(30)
	session.SessionToken = newSecret(570) // as long as AWS's are with a few tags
	session.Expiration = expiration.UTC().Truncate(time.Second)
	stored := *session
	stored.Tags = maps.Clone(session.Tags)
	s.sessions[session.AccessKeyID] = stored
}

// response is CreateSession's output.
type response struct {
	CredentialSet []credentialSet `json:"credentialSet"`
	SubjectARN    string          `json:"subjectArn"`
}

type credentialSet struct {
	AssumedRoleUser struct {
		ARN           string `json:"arn"`
		AssumedRoleID string `json:"assumedRoleId"`
	} `json:"assumedRoleUser"`
	Credentials struct {
		AccessKeyID     string `json:"accessKeyId"`
		Expiration      string `json:"expiration"`
		SecretAccessKey string `json:"secretAccessKey"`
		SessionToken    string `json:"sessionToken"`
	} `json:"credentials"`
	PackedPolicySize int    `json:"packedPolicySize"` // percent
	RoleARN          string `json:"roleArn"`
	SourceIdentity   string `json:"sourceIdentity"`
}

func newResponse(session Session) response {
	var set credentialSet
	set.AssumedRoleUser.ARN = session.AssumedRoleARN
	set.AssumedRoleUser.AssumedRoleID = session.AssumedRoleID
	set.Credentials.AccessKeyID = session.AccessKeyID
	set.Credentials.Expiration = session.Expiration.Format("2006-01-02T15:04:05Z")
	set.Credentials.SecretAccessKey = session.SecretAccessKey
	set.Credentials.SessionToken = session.SessionToken
	set.RoleARN = session.RoleARN
	set.SourceIdentity = session.SourceIdentity
	var packed strings.Builder // AWS packs in a way of its own; this is the plain size against 2048
	for key, value := range session.Tags {
		packed.WriteString(key + value)
	}
	set.PackedPolicySize = min(100, packed.Len()*100/2048)
	return response{[]credentialSet{set}, session.SubjectARN}
}
