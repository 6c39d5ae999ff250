package rolesanywheretest

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"
)

// TrustAnchor is what AddTrustAnchor creates.
type TrustAnchor struct {
	// ARN is made up if empty: arn:aws:rolesanywhere:R:A:trust-anchor/UUID.
	ARN  string
	Name string

	// Certificates are the one or two CA certificates paths may end in.
	Certificates []*x509.Certificate

	// PinnedLeaves are accepted without a path to Certificates, which may
	// then be empty. AWS has nothing of the kind: it is for replaying a
	// recorded request whose CA is lost. Every other check of the leaf and of
	// the request is made as ever.
	PinnedLeaves []*x509.Certificate

	Disabled bool
}

// Profile is what AddProfile creates.
type Profile struct {
	// ARN is made up if empty: arn:aws:rolesanywhere:R:A:profile/UUID.
	ARN  string
	Name string

	// RoleARNs are the roles a session may be asked for.
	RoleARNs []string

	// Duration is the longest session, in whole seconds; 0 means 1 hour. A
	// request for more is cut to it silently, as the service does.
	Duration time.Duration

	// AcceptRoleSessionName lets a request choose its session name.
	AcceptRoleSessionName bool

	Disabled bool

	// AttributeMappings say which parts of the certificate become session
	// tags. Nil means DefaultAttributeMappings; an empty slice means none.
	AttributeMappings []AttributeMapping
}

// Role is what AddRole creates: an IAM role, with its trust policy told by
// the conditions it makes.
type Role struct {
	// ARN is arn:aws:iam::A:role/Name if empty.
	ARN  string
	Name string

	// MaxSessionDuration is the longest session; 0 means 1 hour, as in IAM.
	MaxSessionDuration time.Duration

	Trust Trust
}

// Trust is a role's trust policy for rolesanywhere.amazonaws.com. The zero
// value trusts every certificate of every trust anchor.
type Trust struct {
	// SourceARNs are the trust anchors let in, StringEquals on aws:SourceArn;
	// empty means any.
	SourceARNs []string

	// PrincipalTags must all be there with exactly this value, StringEquals
	// on aws:PrincipalTag. Keys are the tags' full names: x509Subject/OU.
	PrincipalTags map[string]string

	// DenyTagSession and DenySetSourceIdentity leave sts:TagSession or
	// sts:SetSourceIdentity out of the policy's actions, which the service
	// does not work without.
	DenyTagSession        bool
	DenySetSourceIdentity bool

	// Condition, if set, has the last word. The session has neither
	// credentials nor an expiration yet. It must not call the Server.
	Condition func(Session) bool
}

type trustAnchor struct {
	TrustAnchor
	crls []*x509.RevocationList // at most one an issuer
}

type role struct {
	Role
	id string // AROA…
}

// AddTrustAnchor creates a trust anchor and returns its ARN. What
// CreateTrustAnchor refuses is refused with a *Refusal: a certificate that is
// no CA, more than two of them, more than 16000 characters of PEM.
func (s *Server) AddTrustAnchor(anchor TrustAnchor) (arn string, err error) {
	s.init()
	if anchor.ARN == "" {
		anchor.ARN = s.regionalARN("trust-anchor/" + newUUID())
	}
	if err := s.checkTrustAnchor(&anchor); err != nil {
		return "", fmt.Errorf("add trust anchor %q: %w", anchor.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anchors[anchor.ARN] = &trustAnchor{TrustAnchor: anchor.clone()}
	return anchor.ARN, nil
}

// AddProfile creates a profile and returns its ARN. Nothing is checked here;
// a profile the service would not have created, with a role that does not
// exist or a duration out of bounds, fails the requests that name it.
func (s *Server) AddProfile(profile Profile) (arn string) {
	s.init()
	if profile.ARN == "" {
		profile.ARN = s.regionalARN("profile/" + newUUID())
	}
	copied := profile.clone()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiles[profile.ARN] = &copied
	return profile.ARN
}

// AddRole creates a role and returns its ARN. A role of the same ARN is
// replaced by it, as one that was deleted and created anew: with a new ID.
func (s *Server) AddRole(r Role) (arn string) {
	s.init()
	if r.ARN == "" {
		r.ARN = "arn:" + s.partition() + ":iam::" + s.account() + ":role/" + r.Name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[r.ARN] = &role{Role: r.clone(), id: newID("AROA", 17)}
	return r.ARN
}

// UpdateTrustAnchor lets change alter the trust anchor, all but its ARN. The
// result is checked as in AddTrustAnchor and dropped if it does not pass.
// Imported CRLs stay. change must not call the Server.
func (s *Server) UpdateTrustAnchor(arn string, change func(*TrustAnchor)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	anchor, ok := s.anchors[arn]
	if !ok {
		return fmt.Errorf("update trust anchor %s: %w", arn, notFound(msgNoTrustAnchor, "unknown to this server"))
	}
	altered := anchor.TrustAnchor.clone()
	change(&altered)
	altered.ARN = arn
	if err := s.checkTrustAnchor(&altered); err != nil {
		return fmt.Errorf("update trust anchor %s: %w", arn, err)
	}
	anchor.TrustAnchor = altered.clone()
	return nil
}

// UpdateProfile lets change alter the profile, all but its ARN. change must
// not call the Server.
func (s *Server) UpdateProfile(arn string, change func(*Profile)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	profile, ok := s.profiles[arn]
	if !ok {
		return fmt.Errorf("update profile %s: %w", arn, notFound(msgNoProfile, "unknown to this server"))
	}
	altered := profile.clone()
	change(&altered)
	altered.ARN = arn
	*profile = altered.clone()
	return nil
}

// UpdateRole lets change alter the role, all but its ARN; its ID stays.
// change must not call the Server.
func (s *Server) UpdateRole(arn string, change func(*Role)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.roles[arn]
	if !ok {
		return fmt.Errorf("update role %s: unknown to this server", arn)
	}
	altered := r.Role.clone()
	change(&altered)
	altered.ARN = arn
	r.Role = altered.clone()
	return nil
}

// EnableTrustAnchor undoes DisableTrustAnchor.
func (s *Server) EnableTrustAnchor(arn string) error {
	return s.UpdateTrustAnchor(arn, func(a *TrustAnchor) { a.Disabled = false })
}

// DisableTrustAnchor makes the service refuse the trust anchor from now on.
// Sessions issued live on.
func (s *Server) DisableTrustAnchor(arn string) error {
	return s.UpdateTrustAnchor(arn, func(a *TrustAnchor) { a.Disabled = true })
}

// EnableProfile undoes DisableProfile.
func (s *Server) EnableProfile(arn string) error {
	return s.UpdateProfile(arn, func(p *Profile) { p.Disabled = false })
}

// DisableProfile makes the service refuse the profile from now on. Sessions
// issued live on.
func (s *Server) DisableProfile(arn string) error {
	return s.UpdateProfile(arn, func(p *Profile) { p.Disabled = true })
}

func (s *Server) regionalARN(resource string) string {
	return "arn:" + s.partition() + ":rolesanywhere:" + s.region() + ":" + s.account() + ":" + resource
}

func (a TrustAnchor) clone() TrustAnchor {
	a.Certificates = slices.Clone(a.Certificates)
	a.PinnedLeaves = slices.Clone(a.PinnedLeaves)
	return a
}

func (p Profile) clone() Profile {
	p.RoleARNs = slices.Clone(p.RoleARNs)
	p.AttributeMappings = slices.Clone(p.AttributeMappings)
	for i, mapping := range p.AttributeMappings {
		p.AttributeMappings[i].Specifiers = slices.Clone(mapping.Specifiers)
	}
	return p
}

func (r Role) clone() Role {
	r.Trust.SourceARNs = slices.Clone(r.Trust.SourceARNs)
	r.Trust.PrincipalTags = maps.Clone(r.Trust.PrincipalTags)
	return r
}
