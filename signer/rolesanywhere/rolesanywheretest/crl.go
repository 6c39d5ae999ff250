package rolesanywheretest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const maxCRL = 300_000 // bytes of PEM

// ImportCRL makes a certificate revocation list, one PEM block of at most
// 300 kB, effective at once for the certificates that its issuer issued. One
// of the trust anchor's certificates must have signed it. It replaces the
// list imported before for the same issuer. A list whose nextUpdate has
// passed stays effective. A list that is not taken is refused with a *Refusal.
func (s *Server) ImportCRL(trustAnchorARN string, crl []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	anchor, ok := s.anchors[trustAnchorARN]
	if !ok {
		return fmt.Errorf("import CRL: %w", notFound(msgNoTrustAnchor, trustAnchorARN))
	}
	list, err := parseCRL(crl)
	if err == nil {
		err = checkCRL(list, anchor.Certificates)
	}
	if err != nil {
		return fmt.Errorf("import CRL for %s: %w", trustAnchorARN, invalid("Invalid CRL", err.Error())) // not observed
	}
	anchor.crls = slices.DeleteFunc(slices.Clone(anchor.crls), func(old *x509.RevocationList) bool {
		return bytes.Equal(old.RawIssuer, list.RawIssuer)
	})
	anchor.crls = append(anchor.crls, list)
	return nil
}

func parseCRL(crl []byte) (*x509.RevocationList, error) {
	if len(crl) > maxCRL {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(crl), maxCRL)
	}
	block, rest := pem.Decode(crl)
	switch {
	case block == nil:
		return nil, errors.New("not PEM")
	case block.Type != "X509 CRL":
		return nil, fmt.Errorf("a PEM block of type %q, want X509 CRL", block.Type)
	case strings.TrimSpace(string(rest)) != "":
		return nil, errors.New("something follows the PEM block")
	}
	return x509.ParseRevocationList(block.Bytes)
}

func checkCRL(list *x509.RevocationList, issuers []*x509.Certificate) error {
	failure := fmt.Errorf("issuer %q is not the trust anchor", list.Issuer)
	for _, issuer := range issuers {
		if !bytes.Equal(issuer.RawSubject, list.RawIssuer) {
			continue
		}
		if issuer.KeyUsage&x509.KeyUsageCRLSign == 0 {
			failure = fmt.Errorf("%s lacks cRLSign", issuer.Subject)
			continue
		}
		failure = verifySigned(issuer, list.SignatureAlgorithm, list.Raw, list.RawTBSRevocationList, list.Signature)
		if failure == nil {
			return nil
		}
	}
	return failure
}

// revoked returns a certificate of the path that a CRL lists, or nil. No CRL
// can revoke the trust anchor itself.
func (a *trustAnchor) revoked(path []*x509.Certificate) *x509.Certificate {
	for _, c := range path {
		if slices.ContainsFunc(a.Certificates, c.Equal) {
			continue
		}
		for _, list := range a.crls {
			if !bytes.Equal(list.RawIssuer, c.RawIssuer) {
				continue
			}
			for _, entry := range list.RevokedCertificateEntries {
				if entry.SerialNumber.Cmp(c.SerialNumber) == 0 {
					return c
				}
			}
		}
	}
	return nil
}
