package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

var (
	oidRSAESOAEP           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	oidSubjectAltName      = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidDirectoryAttributes = asn1.ObjectIdentifier{2, 5, 29, 9}
	oidEKCertificate       = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	oidManufacturer        = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidModel               = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidVersion             = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
)

// An ekCertificate is one whose key could be read.
type ekCertificate struct {
	*x509.Certificate
	key crypto.PublicKey
}

// parseEKCertificate also knows the certificates whose key is marked as for
// RSAES-OAEP only, which crypto/x509 does not.
func parseEKCertificate(der []byte) (*ekCertificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, malformed("EK certificate: %v", err)
	}
	c := &ekCertificate{Certificate: cert, key: cert.PublicKey}
	if c.key == nil {
		var info struct {
			Algorithm pkix.AlgorithmIdentifier
			Key       asn1.BitString
		}
		if _, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info); err == nil && info.Algorithm.Algorithm.Equal(oidRSAESOAEP) {
			if k, err := x509.ParsePKCS1PublicKey(info.Key.RightAlign()); err == nil {
				c.key = k
			}
		}
	}
	switch c.key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
	default:
		return nil, fmt.Errorf("EK certificate: %w: %v", signer.ErrUnsupportedKey, cert.PublicKeyAlgorithm)
	}
	return c, nil
}

// certifies reports whether a certificate is for the key of pub.
func certifies(der []byte, pub tpm2.TPMTPublic) bool {
	if der == nil {
		return true
	}
	cert, err := parseEKCertificate(der)
	if err != nil {
		return false
	}
	key, err := tpm2.Pub(pub)
	return err == nil && signer.SamePublicKey(cert.key, key)
}

// Fingerprint is by which [VerifyOptions.EKs] knows an EK: the SHA-256 of its
// SubjectPublicKeyInfo.
func Fingerprint(ek crypto.PublicKey) ([]byte, error) {
	der, err := signer.MarshalPublicKey(ek)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

// isEK checks that the certificate says of itself that it is an EK's: makers'
// CAs may issue others, for keys that anybody has. The extended key usage is not
// in the oldest of them; those have at least the TPM's make and model.
func (c *ekCertificate) isEK() error {
	if c.IsCA {
		return fmt.Errorf("%w: %q is a CA's", ErrEKUntrusted, c.Subject)
	}
	if c.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0 {
		return fmt.Errorf("%w: its key usage is not that of a key to encrypt to", ErrEKUntrusted)
	}
	if slices.ContainsFunc(c.UnknownExtKeyUsage, oidEKCertificate.Equal) {
		return nil
	}
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 {
		return fmt.Errorf("%w: its extended key usage is not that of an EK certificate (%v)", ErrEKUntrusted, oidEKCertificate)
	}
	if manufacturer, model, _ := c.names(); manufacturer == "" || model == "" {
		return fmt.Errorf("%w: it is not marked as an EK certificate, neither by its extended key usage (%v) nor by a TPM's make and model", ErrEKUntrusted, oidEKCertificate)
	}
	return nil
}

// bounded reports whether a signature by key is checked in bearable time.
func bounded(key crypto.PublicKey) bool {
	k, ok := key.(*rsa.PublicKey)
	return !ok || k.N.BitLen() <= maxRSABits
}

// verifyChain checks that cert is an EK certificate and leads to a root.
func (c *ekCertificate) verifyChain(roots *x509.CertPool, others [][]byte, more []*x509.Certificate, at time.Time) error {
	if err := c.isEK(); err != nil {
		return err
	}
	if roots == nil {
		return signer.WithHint(fmt.Errorf("%w: no root is", ErrEKUntrusted), "name the root certificates of the TPM's maker")
	}
	pool := x509.NewCertPool()
	for _, der := range others {
		if ca, err := x509.ParseCertificate(der); err == nil && bounded(ca.PublicKey) {
			pool.AddCert(ca)
		}
	}
	for _, ca := range more {
		pool.AddCert(ca)
	}
	// The TCG's profile has the TPM's make and model in a critical
	// subjectAltName of a kind that crypto/x509 takes for unhandled. Here they
	// are handled: see names.
	leaf := *c.Certificate
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), func(id asn1.ObjectIdentifier) bool {
		return id.Equal(oidSubjectAltName) || id.Equal(oidDirectoryAttributes)
	})
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return signer.WithHint(fmt.Errorf("%w: issued by %q: %w", ErrEKUntrusted, c.Issuer, err),
			"if this maker's TPMs are to be trusted, name the certificates of its root and intermediate CAs")
	}
	return nil
}

// names returns the TPM's make, model and version, from the directoryName in
// the subjectAltName (TCG EK Credential Profile, 3.2.9), or the subject.
func (c *ekCertificate) names() (manufacturer, model, version string) {
	read := func(rdns pkix.RDNSequence) {
		for _, set := range rdns {
			for _, a := range set {
				s, ok := a.Value.(string)
				switch {
				case !ok:
				case a.Type.Equal(oidManufacturer):
					manufacturer = s
				case a.Type.Equal(oidModel):
					model = s
				case a.Type.Equal(oidVersion):
					version = s
				}
			}
		}
	}
	read(c.Subject.ToRDNSequence())
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &names); err != nil {
			continue
		}
		for _, n := range names {
			var rdns pkix.RDNSequence
			if n.Class == asn1.ClassContextSpecific && n.Tag == 4 {
				if _, err := asn1.Unmarshal(n.Bytes, &rdns); err == nil {
					read(rdns)
				}
			}
		}
	}
	return manufacturer, model, version
}
