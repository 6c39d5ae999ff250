package rolesanywheretest

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	dateFormat = "20060102T150405Z"
	maxChain   = 5
)

// authenticate verifies that whoever holds the leaf's key made this request
// now and for this endpoint. Whether the leaf is to be trusted is left open.
func (s *Server) authenticate(r *http.Request, body []byte, auth authorization, now time.Time) (leaf *x509.Certificate, pool []*x509.Certificate, refusal *Refusal) {
	canonical, err := canonicalize(r, body, auth)
	if err != nil {
		return nil, nil, badSignature(err.Error())
	}
	if refusal := s.checkScope(auth, r.Header.Get("x-amz-date"), now); refusal != nil {
		return nil, nil, refusal
	}
	leaf, err = parseCertificate(r.Header.Get("x-amz-x509"))
	if err != nil {
		return nil, nil, invalid(msgMalformedCert, "x-amz-x509: "+err.Error())
	}
	pool, err = parseChain(r.Header.Values("x-amz-x509-chain"))
	if err != nil {
		return nil, nil, invalid(msgMalformedChain, "x-amz-x509-chain: "+err.Error())
	}
	if serial := leaf.SerialNumber.String(); auth.serial != serial {
		return nil, nil, badSignature(fmt.Sprintf("the credential's serial is %s, the certificate's %s", auth.serial, serial))
	}
	if err := verifyRequest(leaf, auth.algorithm, canonical.StringToSign, auth.signature); err != nil {
		return nil, nil, badSignature(err.Error())
	}
	return leaf, pool, nil
}

// checkScope checks that the request was made for this region and is recent.
func (s *Server) checkScope(auth authorization, date string, now time.Time) *Refusal {
	if auth.region != s.region() {
		return denied(msgRegionScope, fmt.Sprintf("the scope's region is %s, the endpoint's %s", auth.region, s.region()))
	}
	signed, err := time.Parse(dateFormat, date)
	if err != nil || signed.Format(dateFormat) != date {
		return badSignature(fmt.Sprintf("x-amz-date %.100q is not of the form YYYYMMDDTHHMMSSZ", date))
	}
	if day := date[:len("YYYYMMDD")]; day != auth.date {
		return badSignature(fmt.Sprintf("the scope's date is %s, x-amz-date's %s", auth.date, day))
	}
	if off := now.Sub(signed).Abs(); off > s.skew() {
		return badSignature(fmt.Sprintf("x-amz-date %s is %s off, at most %s allowed", date, off, s.skew()))
	}
	return nil
}

// parseCertificate takes standard base64, padded, of one DER certificate.
func parseCertificate(text string) (*x509.Certificate, error) {
	if strings.ContainsAny(text, "\r\n") { // encoding/base64 skips these
		return nil, fmt.Errorf("base64: line break")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("base64: %w", err)
	}
	return x509.ParseCertificate(der)
}

// parseChain takes the certificates as they come: AWS's own helper sends the
// leaf and what does not belong, and the service lets that pass.
func parseChain(headers []string) ([]*x509.Certificate, error) {
	if len(headers) == 0 {
		return nil, nil
	}
	parts := strings.Split(headers[0], ",")
	if len(parts) > maxChain {
		return nil, fmt.Errorf("%d certificates, want at most %d", len(parts), maxChain)
	}
	pool := make([]*x509.Certificate, len(parts))
	for i, part := range parts {
		c, err := parseCertificate(part)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		pool[i] = c
	}
	return pool, nil
}

// checkCertificate checks the leaf by the trust anchor the request names.
func (s *Server) checkCertificate(in input, leaf *x509.Certificate, pool []*x509.Certificate, now time.Time) *Refusal {
	s.mu.Lock()
	stored, ok := s.anchors[in.trustAnchorARN]
	var anchor trustAnchor
	if ok {
		anchor = *stored
	}
	s.mu.Unlock()
	switch {
	case !ok:
		return notFound(msgNoTrustAnchor, in.trustAnchorARN+" is unknown to this server") // status and type not observed
	case anchor.Disabled:
		return denied(msgAnchorDisabled, in.trustAnchorARN)
	}
	if refusal := checkLeaf(leaf, now); refusal != nil {
		return refusal
	}
	path, err := anchor.path(leaf, pool, now)
	if err != nil {
		return denied(msgUntrusted, err.Error())
	}
	if c := anchor.revoked(path); c != nil {
		return denied(msgRevoked, fmt.Sprintf("%s, serial %s", c.Subject, c.SerialNumber))
	}
	return nil
}
