package metadata

import (
	"net/http"
	"strconv"
	"strings"
)

const (
	headerToken    = "X-Aws-Ec2-Metadata-Token"
	headerTokenTTL = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

// issueToken answers the PUT. Whatever is wrong is answered 400: by 403, 404
// and 405 SDKs conclude that there is no IMDSv2 and fall back.
func (x exchange) issueToken() {
	const p = protocolToken
	ttl, ok := parseTTL(x.r.Header[headerTokenTTL])
	if _, reason := x.guard(); reason != "" {
		x.refuse(p, http.StatusBadRequest, reason)
		return
	}
	switch {
	case !x.c.listener.local:
		x.refuse(p, http.StatusBadRequest, "beyond the loopback only the container credentials are served")
	case !x.mayHaveAny():
		x.refuse(p, http.StatusBadRequest, "this user may have no role here")
	case !ok:
		x.refuse(p, http.StatusBadRequest, "X-aws-ec2-metadata-token-ttl-seconds must be 1 to 21600")
	default:
		x.w.Header()[headerTokenTTL] = []string{strconv.Itoa(ttl)}
		x.sendText(p, http.StatusOK, x.s.tokens.issue(ttl, x.now))
	}
}

// mayHaveAny reports whether the caller may have some role.
func (x exchange) mayHaveAny() bool {
	if !x.roles.owned {
		return true
	}
	for _, r := range x.roles.list {
		if r.allows(x.uid()) {
			return true
		}
	}
	return false
}

func (x exchange) serveIMDS(path string) {
	const p = protocolIMDS
	token := x.r.Header[headerToken]
	switch {
	case !x.mayHaveAny():
		x.refuse(p, http.StatusForbidden, "this user may have no role here")
		return
	case len(token) != 1 || !x.validToken(token[0]):
		x.refuse(p, http.StatusUnauthorized, "a token from PUT /latest/api/token is missing, wrong or has expired")
		return
	}
	name, ok := strings.CutPrefix(path, pathCredentials)
	if !ok || name != "" && name[0] != '/' || x.r.URL.RawPath != "" {
		x.sendText(p, http.StatusNotFound, "not found\n") // SDKs ask for many things: no matter for the log
		return
	}
	role := x.imdsRole()
	switch {
	case role == nil:
		x.refuse(p, http.StatusNotFound, "there is no one role for this caller")
	case name == "" || name == "/":
		x.sendText(p, http.StatusOK, role.o.Name)
	case name[1:] != role.o.Name:
		x.refuse(p, http.StatusNotFound, "no such role")
	default:
		s, err := role.credentials(x.r.Context(), x.now)
		if err != nil {
			x.unavailable(p, err)
			return
		}
		x.handOut(p, role, s, contentText, s.imds)
	}
}

// validToken checks a token, but one that this connection has shown before only
// for its end.
func (x exchange) validToken(token string) bool {
	if token != x.c.token {
		ends, ok := x.s.tokens.parse(token)
		if !ok {
			return false
		}
		x.c.token, x.c.tokenEnds = token, ends
	}
	return x.now.Before(x.c.tokenEnds)
}

// imdsRole returns the role to show, or nil.
func (x exchange) imdsRole() *Role {
	if name := x.c.listener.o.Load().IMDSRole; name != "" {
		if r := x.roles.byName[name]; r != nil && r.o.Token == nil && r.allows(x.uid()) {
			return r
		}
		return nil
	}
	var only *Role
	for _, r := range x.roles.list {
		if r.o.Token != nil || !r.allows(x.uid()) {
			continue
		}
		if only != nil {
			return nil
		}
		only = r
	}
	return only
}
