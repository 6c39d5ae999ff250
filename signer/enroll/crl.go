package enroll

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"
)

// DefaultCRLValidity is the time to a CRL's nextUpdate.
const DefaultCRLValidity = 30 * 24 * time.Hour

// Revoked lists certificates as revoked at the present moment, for [CA.CRL].
func Revoked(certs ...*x509.Certificate) []x509.RevocationListEntry {
	list := make([]x509.RevocationListEntry, len(certs))
	for i, c := range certs {
		list[i] = x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now().UTC()}
	}
	return list
}

// CRL returns a DER certificate revocation list (PEM type "X509 CRL"). A list
// replaces the one before: revoked names every certificate that is to stay
// revoked. Zero validity means [DefaultCRLValidity]. The CRL number is the
// time in milliseconds, so that it grows without being kept.
func (ca *CA) CRL(revoked []x509.RevocationListEntry, validity time.Duration) ([]byte, error) {
	der, err := ca.crl(revoked, validity)
	if err != nil {
		return nil, fmt.Errorf("CRL of %q: %w", ca.Certificate.Subject, err)
	}
	return der, nil
}

func (ca *CA) crl(revoked []x509.RevocationListEntry, validity time.Duration) ([]byte, error) {
	if validity == 0 {
		validity = DefaultCRLValidity
	}
	scheme, err := signatureSchemeOf(ca.Key.Public())
	if err != nil {
		return nil, err
	}
	throwAway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number:                    big.NewInt(now.UnixMilli()),
		ThisUpdate:                now.Add(-backdate),
		NextUpdate:                now.Add(validity),
		RevokedCertificateEntries: revoked,
	}, &x509.Certificate{
		RawSubject:   ca.Certificate.RawSubject,
		SubjectKeyId: ca.Certificate.SubjectKeyId,
		KeyUsage:     ca.Certificate.KeyUsage,
	}, throwAway)
	if err != nil {
		return nil, err
	}
	// TBSCertList: version, signature, … (RFC 5280, section 5.1).
	return resign(der, map[int][]byte{1: scheme.algorithm}, scheme, ca.Key)
}
