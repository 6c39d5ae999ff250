package rolesanywheretest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"
)

// checkTrustAnchor refuses what CreateTrustAnchor does.
func (s *Server) checkTrustAnchor(a *TrustAnchor) error {
	parsed, ok := parseARN(a.ARN, service, "trust-anchor")
	if !ok || parsed.region != s.region() || parsed.partition != s.partition() {
		return invalid("Invalid ARN", fmt.Sprintf("%q is no trust anchor ARN of %s in %s", a.ARN, s.region(), s.partition())) // not observed
	}
	if len(a.Certificates) == 0 && len(a.PinnedLeaves) == 0 {
		return invalid("Invalid certificate bundle", "no certificate") // not observed
	}
	if len(a.Certificates) > 2 {
		return invalid("Invalid certificate bundle", fmt.Sprintf("%d certificates, want at most 2", len(a.Certificates))) // not observed
	}
	size := 0
	for _, c := range a.Certificates {
		if err := checkCA(c); err != nil {
			return invalid(msgBasicConstraints, err.Error())
		}
		if _, err := requestAlgorithm(c); err != nil {
			return invalid("Unsupported key algorithm", err.Error()) // not observed
		}
		size += len(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	if size > 16000 {
		return invalid(validationMessage(constraint("", "source.sourceData.x509CertificateData", "Member must have length less than or equal to 16000")), "")
	}
	return nil
}

// checkCA reports why a certificate may not issue others.
func checkCA(c *x509.Certificate) error {
	switch {
	case c.Version != 3:
		return fmt.Errorf("%s is an X.509 v%d certificate", c.Subject, c.Version)
	case !c.BasicConstraintsValid || !c.IsCA:
		return fmt.Errorf("%s is no CA", c.Subject)
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%s lacks keyCertSign", c.Subject)
	}
	return nil
}

// checkLeaf refuses a certificate that may not sign requests, whoever issued it.
func checkLeaf(leaf *x509.Certificate, now time.Time) *Refusal {
	switch {
	case leaf.Version != 3:
		return denied(msgInsufficient, fmt.Sprintf("an X.509 v%d certificate", leaf.Version)) // message not observed for this
	case leaf.IsCA:
		return denied(msgInsufficient, "the certificate is a CA's")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return denied(msgInsufficient, "the certificate's key usage lacks digitalSignature")
	case !strongSignature(leaf):
		return denied(msgInsufficient, fmt.Sprintf("the certificate is signed with %v", leaf.SignatureAlgorithm)) // message not observed for this
	case len(leaf.Subject.Names) == 0:
		return denied(msgInsufficient, "the certificate's subject is empty") // message not observed for this
	}
	if err := checkValidity(leaf, now); err != nil {
		return denied(msgUntrusted, err.Error()) // message not observed for this
	}
	return nil
}

func checkValidity(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s is not valid before %s", c.Subject, c.NotBefore.Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("%s expired at %s", c.Subject, c.NotAfter.Format(time.RFC3339))
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("%s has a critical extension %v", c.Subject, c.UnhandledCriticalExtensions[0])
	}
	return nil
}

// path returns the certificates from the leaf to the trust anchor, both
// included. The pool is in no order and may hold what does not belong. Among
// the reasons for there being no path, the error tells the deepest.
func (a *trustAnchor) path(leaf *x509.Certificate, pool []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if slices.ContainsFunc(a.PinnedLeaves, leaf.Equal) {
		return []*x509.Certificate{leaf}, nil
	}
	builder := pathBuilder{anchors: a.Certificates, pool: pool, now: now}
	if path := builder.extend([]*x509.Certificate{leaf}); path != nil {
		return path, nil
	}
	return nil, builder.failure
}

type pathBuilder struct {
	anchors, pool []*x509.Certificate
	now           time.Time
	failure       error
	rank          int // of failure: the highest is told
}

// extend returns the first path that goes on from the given one and ends in
// an anchor, or nil.
func (b *pathBuilder) extend(path []*x509.Certificate) []*x509.Certificate {
	issued, depth := path[len(path)-1], 3*len(path)
	for i, issuer := range slices.Concat(b.anchors, b.pool) {
		isAnchor := i < len(b.anchors)
		if !bytes.Equal(issuer.RawSubject, issued.RawIssuer) || slices.ContainsFunc(path, issuer.Equal) ||
			!isAnchor && slices.ContainsFunc(b.anchors, issuer.Equal) {
			continue
		}
		if err := verifySigned(issuer, issued.SignatureAlgorithm, issued.Raw, issued.RawTBSCertificate, issued.Signature); err != nil {
			b.fail(depth+1, fmt.Errorf("%s did not sign %s: %w", issuer.Subject, issued.Subject, err))
			continue
		}
		longer := append(slices.Clip(path), issuer)
		if err := b.checkIssuer(longer, isAnchor); err != nil {
			b.fail(depth+2, err)
			continue
		}
		if isAnchor {
			return longer
		}
		if found := b.extend(longer); found != nil {
			return found
		}
	}
	b.fail(depth, fmt.Errorf("no usable issuer %q of %q", issued.Issuer, issued.Subject))
	return nil
}

func (b *pathBuilder) fail(rank int, err error) {
	if b.failure == nil || rank > b.rank {
		b.failure, b.rank = err, rank
	}
}

// checkIssuer checks whether the last certificate of the path may have issued
// those before it.
func (b *pathBuilder) checkIssuer(path []*x509.Certificate, isAnchor bool) error {
	issuer := path[len(path)-1]
	if err := checkCA(issuer); err != nil {
		return err
	}
	if err := checkValidity(issuer, b.now); err != nil {
		return err
	}
	below := 0 // RFC 5280, section 4.2.1.9: self-issued ones and the leaf do not count
	for _, c := range path[1 : len(path)-1] {
		if !bytes.Equal(c.RawSubject, c.RawIssuer) {
			below++
		}
	}
	if limited := issuer.MaxPathLen > 0 || issuer.MaxPathLenZero; limited && below > issuer.MaxPathLen {
		return fmt.Errorf("%s has path length %d and %d CAs below it", issuer.Subject, issuer.MaxPathLen, below)
	}
	if isAnchor {
		return b.checkNames(path)
	}
	return nil
}

// checkNames has crypto/x509 check name constraints, which it can where no
// certificate of the path is ML-DSA's.
func (b *pathBuilder) checkNames(path []*x509.Certificate) error {
	isOpaque := func(c *x509.Certificate) bool {
		return c.PublicKey == nil || c.SignatureAlgorithm == x509.UnknownSignatureAlgorithm
	}
	if slices.ContainsFunc(path, isOpaque) {
		return nil
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(path[len(path)-1])
	for _, c := range path[1 : len(path)-1] {
		between.AddCert(c)
	}
	_, err := path[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: b.now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}
