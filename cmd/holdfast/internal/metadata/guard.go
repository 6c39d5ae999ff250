package metadata

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard returns a status and a reason to refuse a request, or 0.
func (x exchange) guard() (status int, reason string) {
	h := x.r.Header
	switch {
	case !x.c.listener.unix && !x.isOwnHost(x.r.Host):
		return http.StatusForbidden, "Host is no address of this service"
	case h["Origin"] != nil, h["Sec-Fetch-Site"] != nil:
		return http.StatusForbidden, "requests of browsers are refused"
	case h["X-Forwarded-For"] != nil, h["Forwarded"] != nil:
		return http.StatusForbidden, "forwarded requests are refused"
	case x.r.ContentLength != 0:
		x.w.Header().Set("Connection", "close") // what follows is not read
		return http.StatusRequestEntityTooLarge, "a request has no body here"
	}
	return 0, ""
}

// isOwnHost reports whether host, from a request, is an address by which this
// machine's processes may know the service. A name that an attacker's DNS
// leads here never is.
func (x exchange) isOwnHost(host string) bool {
	name := hostOf(host)
	if name == "" {
		return false
	}
	// Names before addresses: parsing one costs more than looking.
	if name == "127.0.0.1" || strings.EqualFold(name, "localhost") {
		return true
	}
	for _, own := range x.c.listener.o.Load().Hosts {
		if strings.EqualFold(name, own) {
			return true
		}
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" {
		return false
	}
	addr = addr.Unmap()
	return addr.IsLoopback() || slices.Contains(wellKnown[:], addr) || x.c.Conn != nil && addr == localAddr(x.c)
}

// wellKnown are the addresses at which SDKs look for these services; a machine
// may lead them here.
var wellKnown = [...]netip.Addr{
	netip.MustParseAddr("169.254.169.254"),
	netip.MustParseAddr("169.254.170.2"),
	netip.MustParseAddr("169.254.170.23"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd00:ec2::23"),
}

// hostOf cuts the port, and the brackets of an IPv6 address; "" if host is
// malformed.
func hostOf(host string) string {
	name, port := host, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || !strings.Contains(host[:end], ":") {
			return ""
		}
		name, port = host[1:end], host[end+1:]
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		name, port = host[:i], host[i:]
	}
	if port != "" && (port[0] != ':' || len(port) > 6 || strings.Trim(port[1:], "0123456789") != "") {
		return ""
	}
	return name
}

func localAddr(c *conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// uid returns who asks, if any role cares; -1 if it is not known.
func (x exchange) uid() int64 {
	if !x.roles.owned {
		return -1
	}
	return x.c.who().UID
}
