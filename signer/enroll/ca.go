package enroll

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

// Lifetimes of what the CA issues when the options name none.
const (
	DefaultCALifetime   = 10 * 365 * 24 * time.Hour
	DefaultLeafLifetime = 30 * 24 * time.Hour
)

// backdate is how far NotBefore lies in the past unless the options say
// otherwise, for verifiers whose clock is behind.
const backdate = 5 * time.Minute

// A CA issues certificates. It keeps no record of them. It is safe for
// concurrent use if its key is.
type CA struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// CAOptions describe a CA's certificate.
type CAOptions struct {
	Subject pkix.Name

	// Lifetime counts from NotBefore; for the zero NotBefore, from now. Zero
	// means [DefaultCALifetime]. No certificate outlives its issuer, nor
	// begins before it: what would is cut to the issuer's validity.
	Lifetime time.Duration

	// NotBefore is by default five minutes ago.
	NotBefore time.Time

	// PathLen is the number of CAs that may stand between this one and a
	// leaf. Nil sets no limit; new(0) is right for a CA that issues leaves
	// only.
	PathLen *int
}

// LeafOptions describe a workload's certificate. The zero value will do for
// [CA.Sign].
type LeafOptions struct {
	// Subject replaces the request's subject unless it is empty.
	Subject pkix.Name

	// Lifetime and NotBefore are as in [CAOptions], but the default is
	// [DefaultLeafLifetime].
	Lifetime  time.Duration
	NotBefore time.Time

	// Subject alternative names. If there is any, they replace all of the
	// request's.
	DNSNames       []string
	EmailAddresses []string
	IPAddresses    []net.IP
	URIs           []*url.URL
}

// NewCA makes a self-signed root for key.
func NewCA(key crypto.Signer, o CAOptions) (*CA, error) {
	template, err := caTemplate(o)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	cert, err := issue(template, key.Public(), nil, key)
	if err != nil {
		return nil, fmt.Errorf("CA certificate %q: %w", o.Subject, err)
	}
	return &CA{Certificate: cert, Key: key}, nil
}

// LoadCA joins a CA's certificate and key. The error wraps
// [signer.ErrKeyMismatch] if they do not belong together.
func LoadCA(cert *x509.Certificate, key crypto.Signer) (*CA, error) {
	if _, err := signer.New(key, cert, nil); err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return nil, fmt.Errorf("CA: the certificate %q is not a CA's: basicConstraints lacks CA:TRUE", cert.Subject)
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("CA: the certificate %q may not sign certificates: keyUsage lacks keyCertSign", cert.Subject)
	}
	return &CA{Certificate: cert, Key: key}, nil
}

// SignCA issues an intermediate CA's certificate for pub. Join it to its key
// with [LoadCA].
func (ca *CA) SignCA(pub crypto.PublicKey, o CAOptions) (*x509.Certificate, error) {
	template, err := caTemplate(o)
	if err != nil {
		return nil, fmt.Errorf("intermediate certificate: %w", err)
	}
	if limit, ok := pathLen(ca.Certificate); ok {
		if limit == 0 {
			return nil, fmt.Errorf("intermediate certificate %q: the issuer %q allows no CA below it (pathlen:0)", o.Subject, ca.Certificate.Subject)
		}
		if o.PathLen != nil && *o.PathLen >= limit {
			return nil, fmt.Errorf("intermediate certificate %q: path length %d does not fit under the issuer's %d", o.Subject, *o.PathLen, limit)
		}
	}
	cert, err := issue(template, pub, ca.Certificate, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("intermediate certificate %q: %w", o.Subject, err)
	}
	return cert, nil
}

// Sign issues a leaf certificate for a request, whose signature it checks. Of
// the request it takes the public key, the subject and the subject alternative
// names, other kinds of names (directoryName, otherName) included; whatever
// else the request asks for is ignored.
func (ca *CA) Sign(csr *x509.CertificateRequest, o LeafOptions) (*x509.Certificate, error) {
	pub, err := checkRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request %q: %w", csr.Subject, err)
	}
	template := leafTemplate(o)
	if isEmpty(o.Subject) {
		template.RawSubject, template.Subject = csr.RawSubject, csr.Subject
	}
	if !o.hasNames() {
		oidSAN := asn1.ObjectIdentifier{2, 5, 29, 17}
		for _, e := range csr.Extensions {
			if e.Id.Equal(oidSAN) {
				template.ExtraExtensions = []pkix.Extension{e}
			}
		}
	}
	return ca.signLeaf(template, pub)
}

// Issue issues a leaf certificate for pub without a request. The caller
// answers for the subject's possession of the private key.
func (ca *CA) Issue(pub crypto.PublicKey, o LeafOptions) (*x509.Certificate, error) {
	return ca.signLeaf(leafTemplate(o), pub)
}

func (ca *CA) signLeaf(template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	if err := checkSubject(attributes(template)); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if err := checkNames(template.DNSNames, template.EmailAddresses, template.IPAddresses, template.URIs); err != nil {
		return nil, fmt.Errorf("certificate %q: %w", template.Subject, err)
	}
	cert, err := issue(template, pub, ca.Certificate, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w", template.Subject, err)
	}
	return cert, nil
}

func caTemplate(o CAOptions) (*x509.Certificate, error) {
	t := &x509.Certificate{
		Subject:               o.Subject,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            -1,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if o.PathLen != nil {
		if *o.PathLen < 0 {
			return nil, fmt.Errorf("path length %d is negative", *o.PathLen)
		}
		t.MaxPathLen, t.MaxPathLenZero = *o.PathLen, *o.PathLen == 0
	}
	setValidity(t, o.NotBefore, o.Lifetime, DefaultCALifetime)
	return t, checkSubject(attributes(t))
}

func leafTemplate(o LeafOptions) *x509.Certificate {
	t := &x509.Certificate{
		Subject:               o.Subject,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:              o.DNSNames,
		EmailAddresses:        o.EmailAddresses,
		IPAddresses:           o.IPAddresses,
		URIs:                  o.URIs,
	}
	setValidity(t, o.NotBefore, o.Lifetime, DefaultLeafLifetime)
	return t
}

func setValidity(t *x509.Certificate, notBefore time.Time, lifetime, byDefault time.Duration) {
	if lifetime == 0 {
		lifetime = byDefault
	}
	from := notBefore
	if from.IsZero() {
		from = time.Now()
		notBefore = from.Add(-backdate)
	}
	t.NotBefore, t.NotAfter = notBefore.UTC(), from.Add(lifetime).UTC()
}

// clip keeps a certificate's life inside its issuer's.
func clip(t, issuer *x509.Certificate) error {
	expired := time.Now().After(issuer.NotAfter) && t.NotBefore.Add(backdate).After(issuer.NotAfter)
	if t.NotBefore.Before(issuer.NotBefore) {
		t.NotBefore = issuer.NotBefore
	}
	if t.NotAfter.After(issuer.NotAfter) {
		t.NotAfter = issuer.NotAfter
	}
	if expired || !t.NotAfter.After(t.NotBefore) {
		return fmt.Errorf("no time left to be valid: the issuer %q is valid from %s to %s", issuer.Subject,
			issuer.NotBefore.Format(time.RFC3339), issuer.NotAfter.Format(time.RFC3339))
	}
	return nil
}

func pathLen(ca *x509.Certificate) (limit int, ok bool) {
	return ca.MaxPathLen, ca.MaxPathLen > 0 || ca.MaxPathLen == 0 && ca.MaxPathLenZero
}

func (o LeafOptions) hasNames() bool {
	return len(o.DNSNames)+len(o.EmailAddresses)+len(o.IPAddresses)+len(o.URIs) > 0
}

func checkNames(dns, email []string, ips []net.IP, uris []*url.URL) error {
	if slices.Contains(dns, "") {
		return errors.New("an empty DNS name")
	}
	if slices.Contains(email, "") {
		return errors.New("an empty e-mail address")
	}
	for _, ip := range ips {
		if len(ip) != net.IPv4len && len(ip) != net.IPv6len {
			return errors.New("an empty IP address")
		}
	}
	for _, u := range uris {
		if u == nil || u.Scheme == "" {
			return errors.New("a URI without a scheme")
		}
	}
	return nil
}
