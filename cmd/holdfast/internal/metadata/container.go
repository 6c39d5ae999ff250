package metadata

import "net/http"

// serveContainer answers GET /role/NAME, the container credentials.
func (x exchange) serveContainer(name string) {
	const p = protocolECS
	role := x.roles.byName[name]
	if role == nil || x.r.URL.RawPath != "" {
		x.refuse(p, http.StatusNotFound, "no such role")
		return
	}
	if !role.allows(x.uid()) {
		x.refuse(p, http.StatusForbidden, "this user may not have the role")
		return
	}
	if role.o.Token == nil {
		if !x.c.listener.local {
			x.refuse(p, http.StatusForbidden, "a role without an authorization token is not served beyond the loopback")
			return
		}
	} else if ok, err := role.o.Token.check(x.r.Header["Authorization"], x.now); err != nil {
		x.s.log.Error("authorization token file", "role", name, "error", err.Error())
		x.refuse(p, http.StatusServiceUnavailable, "the authorization token file cannot be used")
		return
	} else if !ok {
		x.refuse(p, http.StatusUnauthorized, "the authorization token is missing or wrong")
		return
	}
	s, err := role.credentials(x.r.Context(), x.now)
	if err != nil {
		x.unavailable(p, err)
		return
	}
	x.handOut(p, role, s, contentJSON, s.ecs)
}
