package signer

import (
	"bytes"
	"crypto/x509"
)

// MaxChain is the number of intermediate certificates an Identity keeps. IAM
// Roles Anywhere reads no more.
const MaxChain = 5

// OrderChain picks from pool, in any order and with any rubbish in it, the
// certificates that lead from leaf towards its root, issuer after issuer. The
// result holds neither leaf nor a self-signed root nor a certificate that is
// no issuer on the way, and at most [MaxChain] certificates, the nearest to
// the leaf.
func OrderChain(leaf *x509.Certificate, pool []*x509.Certificate) []*x509.Certificate {
	var chain []*x509.Certificate
	used := map[*x509.Certificate]bool{}
	for at := leaf; len(chain) < MaxChain; {
		next := findIssuer(at, leaf, pool, used)
		if next == nil {
			break
		}
		used[next] = true
		chain = append(chain, next)
		at = next
	}
	return chain
}

// findIssuer prefers, of several certificates of the same CA (cross-signed or
// renewed), the one that is valid longest.
func findIssuer(of, leaf *x509.Certificate, pool []*x509.Certificate, used map[*x509.Certificate]bool) *x509.Certificate {
	var best *x509.Certificate
	for _, c := range pool {
		if used[c] || c.Equal(leaf) || c.Equal(of) || isSelfSigned(c) || !issued(c, of) {
			continue
		}
		if best == nil || c.NotAfter.After(best.NotAfter) {
			best = c
		}
	}
	return best
}

func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && issued(c, c)
}

// issued reports whether parent's key signed child. Where x509 cannot check
// the algorithm (ML-DSA), this package does.
func issued(parent, child *x509.Certificate) bool {
	if !bytes.Equal(parent.RawSubject, child.RawIssuer) {
		return false
	}
	if len(child.AuthorityKeyId) > 0 && len(parent.SubjectKeyId) > 0 && !bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId) {
		return false
	}
	return CheckSignature(child, parent) == nil
}
